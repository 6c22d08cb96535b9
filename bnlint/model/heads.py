"""Which keys of a state dict are its head: the classifier at its end, which a new task replaces."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnlint.model.tensor import Tensor

# Whole parts of a name, never pieces of one: fc1 belongs to a squeeze-and-excitation block, cls_token to a ViT.
HEADS = frozenset(
    """
    fc classifier head heads cls logits last_linear output aux_classifier auxlogits aux_logits fc_cls class_head
    """.split()
)


def head_of(tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """The keys of the head: at the end of the state dict, modules called fc, classifier, head and the like.

    Where none is called so, the last module, if it is a convolution or linear layer with a bias.
    """
    modules: dict[str, list[str]] = {}
    for key in tensors:
        modules.setdefault(key.rpartition(".")[0], []).append(key)
    head: list[str] = []
    for module, keys in reversed(modules.items()):
        if HEADS.isdisjoint(module.lower().split(".")):
            break
        head += keys
    if not head and modules:
        module, keys = modules.popitem()
        weight, bias = tensors.get(f"{module}.weight"), tensors.get(f"{module}.bias")
        if modules and len(keys) == 2 and weight is not None and bias is not None and len(weight.shape) > 1:
            head = keys
    return frozenset(head)
