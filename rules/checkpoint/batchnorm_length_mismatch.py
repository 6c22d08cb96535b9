from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.ERROR,
    good=lambda: [
        batchnorm(),
        batchnorm(bias=None),
        batchnorm(weight=None, bias=None),
        batchnorm(running_var=None),
        batchnorm(weight=[1.0], bias=[0.5], running_mean=[0.0], running_var=[2.0]),
    ],
    bad=lambda: [
        batchnorm(weight=[0.9, 1.1, 0.7]),
        batchnorm(bias=[0.1, -0.3, 0.2, 0.0, 0.4]),
        batchnorm(running_mean=[0.3]),
        batchnorm(running_var=[0.9, 1.7]),
        batchnorm(weight=None, bias=None, running_var=[0.9]),
    ],
)
def batchnorm_length_mismatch(layer: BatchNorm) -> Iterator[Finding]:
    """The vectors of one BatchNorm layer have different lengths.

    weight, bias, running_mean and running_var hold one number per channel. torch refuses the layer
    with "running_mean should contain 64 elements not 63" in the first forward, and `load_state_dict`
    with "size mismatch", also with strict=False: no input gets a result.

    Common causes:
        The layer mixes two models: a channel was pruned in some of its vectors only
        (pytorch-prunes#6), or keys were copied from a model of another width (BGRL#1).

    Fix:
        Take all four vectors of the layer from the same model. After pruning, index them alike:

            for leaf in ("weight", "bias", "running_mean", "running_var"):
                sd[f"{name}.{leaf}"] = sd[f"{name}.{leaf}"][kept]

    When this is fine:
        Never.
    """
    shapes = {leaf: vector.shape for leaf, vector in layer.vectors.items()}
    if len(set(shapes.values())) < 2:
        return
    counts = list(shapes.values())
    usual = max(counts, key=counts.count)
    yield Finding(
        layer.at(*(leaf for leaf, shape in shapes.items() if shape != usual)),
        "the vectors differ in length: " + ", ".join(f"{leaf} {size(shape)}" for leaf, shape in shapes.items()),
        evidence={leaf: len(vector) for leaf, vector in layer.vectors.items()},
    )


def size(shape: tuple[int, ...]) -> str:
    return str(shape[0]) if len(shape) == 1 else f"of shape {list(shape)}"
