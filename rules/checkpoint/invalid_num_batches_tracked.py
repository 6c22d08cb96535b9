from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, Tensor, Vector, batchnorm, rule, tensor

INT64_MINIMUM = -(2**63)


@rule(
    severity=Severity.WARNING,
    good=lambda: [
        batchnorm(),
        batchnorm(num_batches_tracked=0),
        batchnorm(num_batches_tracked=1_905_515),
        batchnorm(num_batches_tracked=None),
    ],
    bad=lambda: [
        batchnorm(num_batches_tracked=-3),
        batchnorm(num_batches_tracked=INT64_MINIMUM),
        batchnorm(num_batches_tracked=tensor(100.5)),
        batchnorm(num_batches_tracked=tensor(float("nan"))),
        batchnorm(num_batches_tracked=tensor(float("inf"), "float16")),
        batchnorm(num_batches_tracked=tensor([3, 4], "int64")),
        batchnorm(num_batches_tracked=tensor([], "int64")),
        batchnorm(num_batches_tracked=tensor(7.0)),
        batchnorm(num_batches_tracked=tensor([7], "int64")),
        batchnorm(num_batches_tracked=tensor(7, "int32")),
        complex_counter(),
    ],
)
def invalid_num_batches_tracked(layer: BatchNorm) -> Iterator[Finding]:
    """num_batches_tracked is not a count: negative, fractional, not finite, or not one int64 number.

    Loading converts it without a word: 6.7 becomes 6, NaN and infinity become -9223372036854775808.
    float16 overflows above 65504 batches, and bfloat16 makes 70144 of 70001. Where momentum is None
    the count is the divisor of every later update; elsewhere it only misleads whoever reads it.

    Common causes:
        Someone averaged the whole state dict, counter included: model soups, federated averaging
        (PFLlib PR#269, APPFL PR#86, FLamby#260). Or cast every tensor: `{k: v.half() for ...}`;
        `module.half()` leaves the counter alone. A one-element vector comes from torch 0.3 code that
        wrote `torch.LongTensor([0])`; it loads fine.

    Fix:
        Average and cast floating point tensors only, and take the counter from one of the models:
        `merged[key] = torch.stack([sd[key] for sd in models]).amax(0) if key.endswith("num_batches_tracked") else ...`.
        To repair a file: `sd[key] = torch.tensor(int(count))`.

    When this is fine:
        Whole numbers stored as floats or in a vector of one element load unchanged (info).
    """
    counter = layer.tracked
    if counter is None and "num_batches_tracked" in layer.tensors:
        yield not_a_number(layer)
    if counter is None or (counter.dtype == "int64" and counter.shape == () and counter[0] >= 0):
        return
    wrong = defect(counter)
    yield Finding(
        layer.at("num_batches_tracked"),
        f"num_batches_tracked is {wrong or 'a whole number'}{stored(counter)}; expected one int64 number",
        evidence={"dtype": counter.dtype, "shape": counter.shape, "values": counter[:8].tolist()},
        severity=Severity.WARNING if wrong else Severity.INFO,
    )


def not_a_number(layer: BatchNorm) -> Finding:
    there = layer.tensors["num_batches_tracked"]
    what = "no plain tensor" if there.dtype == "opaque" else there.dtype
    return Finding(
        layer.at("num_batches_tracked"),
        f"num_batches_tracked is {what}; expected one int64 number",
        evidence={"dtype": there.dtype, "shape": there.shape, "values": []},
    )


def defect(counter: Vector) -> str:
    """What is wrong with the value itself; "" where it loads as the number that it is."""
    if len(counter) != 1:
        return f"{len(counter)} numbers"
    count = counter[0]
    if not counter.finite:
        return f"{count}"
    if count == INT64_MINIMUM:
        return f"{INT64_MINIMUM}, what NaN becomes"
    if count < 0:
        return f"negative ({count:g})"
    return "" if count == int(count) else f"fractional ({count:g})"


def stored(counter: Vector) -> str:
    """How it is stored, where that is not how torch does it."""
    dtype = "" if counter.dtype == "int64" else f", stored as {counter.dtype}"
    return dtype + ("" if counter.shape == () else f", of shape {list(counter.shape)}")


def complex_counter() -> BatchNorm:
    layer = batchnorm(num_batches_tracked=None)
    layer.tensors = {**layer.tensors, "num_batches_tracked": Tensor("complex64", (), None)}
    return layer
