"""Small faithful versions of well-known networks: their modules, names and order, few channels.

Only what a state dict shows is built; none of them has a forward.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn


def conv_bn(inside: int, outside: int, size: int = 3, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, size, groups=groups, bias=False), nn.BatchNorm2d(outside)]


class Bottleneck(nn.Module):
    """torchvision's: 1x1, 3x3, 1x1 around a shortcut."""

    def __init__(self, inside: int, width: int, *, shortcut: bool) -> None:
        super().__init__()
        outside = 4 * width
        self.conv1, self.bn1 = conv_bn(inside, width, 1)
        self.conv2, self.bn2 = conv_bn(width, width)
        self.conv3, self.bn3 = conv_bn(width, outside, 1)
        if shortcut:
            self.downsample = nn.Sequential(*conv_bn(inside, outside, 1))


class ResNet(nn.Module):
    """torchvision.models.ResNet with bottlenecks: conv1, bn1, layer1-4, fc."""

    def __init__(self, width: int = 4, classes: int = 10, blocks: Sequence[int] = (2, 3, 2, 2)) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(3, width, 7)
        inside = width
        for stage, count in enumerate(blocks):
            inner = width << stage
            made = [Bottleneck(inside if not k else 4 * inner, inner, shortcut=not k) for k in range(count)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
            inside = 4 * inner
        self.fc = nn.Linear(inside, classes)


class VGG(nn.Module):
    """torchvision.models.VGG: features and a classifier of three layers; `batch_norm` is vgg*_bn."""

    def __init__(self, width: int = 4, classes: int = 10, *, batch_norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 3
        for step in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"):
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inside, step * width, 3), *([nn.BatchNorm2d(step * width)] if batch_norm else [])]
            layers.append(nn.ReLU())
            inside = step * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(inside, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(), nn.Dropout(),
            nn.Linear(32, classes),
        )  # fmt: skip


class InvertedResidual(nn.Module):
    """torchvision's of MobileNetV2: expand, depthwise, project, all in one `conv`."""

    def __init__(self, inside: int, outside: int, expand: int) -> None:
        super().__init__()
        hidden = inside * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(nn.Sequential(*conv_bn(inside, hidden, 1), nn.ReLU6()))
        layers.append(nn.Sequential(*conv_bn(hidden, hidden, 3, hidden), nn.ReLU6()))
        self.conv = nn.Sequential(*layers, *conv_bn(hidden, outside, 1))


class MobileNetV2(nn.Module):
    """torchvision.models.MobileNetV2: features.0 the stem, features.18 the last convolution."""

    def __init__(self, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*conv_bn(3, width), nn.ReLU6())]
        inside = width
        for expand, step, count in ((1, 1, 1), (3, 2, 2), (3, 3, 3), (3, 4, 3), (3, 6, 2)):
            for _ in range(count):
                layers.append(InvertedResidual(inside, step * width, expand))
                inside = step * width
        layers.append(nn.Sequential(*conv_bn(inside, 16 * width, 1), nn.ReLU6()))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(16 * width, classes))


class SqueezeExcitation(nn.Module):
    """Two 1x1 convolutions called fc1 and fc2, as torchvision calls them."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)


class MBConv(nn.Module):
    """torchvision's of EfficientNet: expand, depthwise, squeeze, project, all in one `block`."""

    def __init__(self, inside: int, outside: int, expand: int) -> None:
        super().__init__()
        hidden = inside * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(nn.Sequential(*conv_bn(inside, hidden, 1), nn.SiLU()))
        layers.append(nn.Sequential(*conv_bn(hidden, hidden, 3, hidden), nn.SiLU()))
        layers += [SqueezeExcitation(hidden, max(1, inside // 4)), nn.Sequential(*conv_bn(hidden, outside, 1))]
        self.block = nn.Sequential(*layers)


class EfficientNet(nn.Module):
    """torchvision.models.EfficientNet: features.0 the stem, then stages of MBConv, then the top."""

    def __init__(self, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Sequential(*conv_bn(3, 2 * width), nn.SiLU())]
        inside = 2 * width
        for expand, step, count in ((1, 1, 1), (4, 2, 2), (4, 3, 2), (4, 5, 3)):
            blocks = [MBConv(inside if not k else step * width, step * width, expand) for k in range(count)]
            stages.append(nn.Sequential(*blocks))
            inside = step * width
        stages.append(nn.Sequential(*conv_bn(inside, 12 * width, 1), nn.SiLU()))
        self.features = nn.Sequential(*stages)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(12 * width, classes))


class DenseLayer(nn.Module):
    """torchvision's: norm1, conv1, norm2, conv2."""

    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, bias=False)


class DenseNet(nn.Module):
    """torchvision.models.DenseNet: features.denseblockN.denselayerM, transitions between, classifier."""

    def __init__(self, width: int = 4, classes: int = 10, blocks: Sequence[int] = (2, 3, 3)) -> None:
        super().__init__()
        self.features = nn.Sequential(OrderedDict(zip(("conv0", "norm0"), conv_bn(3, 2 * width, 7), strict=True)))
        inside = 2 * width
        for number, count in enumerate(blocks, 1):
            block = nn.Sequential()
            for k in range(count):
                block.add_module(f"denselayer{k + 1}", DenseLayer(inside, width))
                inside += width
            self.features.add_module(f"denseblock{number}", block)
            if number < len(blocks):
                transition = nn.Sequential()
                transition.add_module("norm", nn.BatchNorm2d(inside))
                transition.add_module("conv", nn.Conv2d(inside, inside // 2, 1, bias=False))
                self.features.add_module(f"transition{number}", transition)
                inside //= 2
        self.features.add_module(f"norm{len(blocks) + 1}", nn.BatchNorm2d(inside))
        self.classifier = nn.Linear(inside, classes)


class Backbone(nn.Module):
    """A ResNet without its head, as `backbone.body`, and a feature pyramid beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = ResNet(width)
        del self.body.fc
        self.fpn = nn.Module()
        self.fpn.inner_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4 * width << stage, 2 * width, 1)) for stage in range(4)
        )
        self.fpn.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3)) for _ in range(4))


class Detector(nn.Module):
    """torchvision's Faster R-CNN in outline: backbone.body, backbone.fpn, rpn.head, roi_heads."""

    def __init__(self, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.backbone = Backbone(width)
        channels = 2 * width
        self.rpn = nn.Module()
        self.rpn.head = nn.Module()
        self.rpn.head.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3)))
        self.rpn.head.cls_logits = nn.Conv2d(channels, 3, 1)
        self.rpn.head.bbox_pred = nn.Conv2d(channels, 12, 1)
        self.roi_heads = nn.Module()
        self.roi_heads.box_head = nn.Module()
        self.roi_heads.box_head.fc6 = nn.Linear(channels * 4, 24)
        self.roi_heads.box_head.fc7 = nn.Linear(24, 24)
        self.roi_heads.box_predictor = nn.Module()
        self.roi_heads.box_predictor.cls_score = nn.Linear(24, classes)
        self.roi_heads.box_predictor.bbox_pred = nn.Linear(24, 4 * classes)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "ResNet": ResNet,
    "VGG-BN": VGG,
    "MobileNetV2": MobileNetV2,
    "EfficientNet": EfficientNet,
    "DenseNet": DenseNet,
    "Detector": Detector,
}
# The modules that make up the head of each, and how their names begin.
HEADS = {
    "ResNet": ("fc.",),
    "VGG-BN": ("classifier.6.",),
    "MobileNetV2": ("classifier.",),
    "EfficientNet": ("classifier.",),
    "DenseNet": ("classifier.",),
    "Detector": ("roi_heads.box_predictor.",),
}
