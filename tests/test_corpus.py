"""Real published checkpoints: layer by layer, what the model says is what the catalogue says.

BNLINT_CORPUS names a folder of checkpoints with a catalog.json that was made with torch.
"""

import json
import os
from math import isfinite, sqrt
from pathlib import Path

import pytest

from bnlint import BatchNorm, RawFile, Vector
from bnlint.readers.opening import open_file

CORPUS = os.environ.get("BNLINT_CORPUS")
CATALOG = json.loads(Path(CORPUS, "catalog.json").read_text("utf-8")) if CORPUS else []
FORMATS = {
    "torch-zip": "torch-zip",
    "torch-legacy": "torch-legacy",
    "torchscript-zip": "torchscript",
    "safetensors": "safetensors",
}
READABLE = [entry for entry in CATALOG if entry["container"] in FORMATS]
OTHERS = [entry for entry in CATALOG if entry["container"] not in FORMATS]
SMALLEST_NORMAL = 2.0**-126

pytestmark = pytest.mark.skipif(CORPUS is None, reason="BNLINT_CORPUS is not set")


def name(entry: dict[str, object]) -> str:
    return str(entry["file"])


def opened(entry: dict[str, object]) -> RawFile:
    """The file, read and closed again: the numbers of its layers are in memory."""
    file = open_file(os.path.join(str(CORPUS), name(entry)))
    if file.checkpoint is not None:
        file.checkpoint.close()
    return file


def layers(file: RawFile) -> dict[str, BatchNorm]:
    """Every whole BatchNorm layer of the file, called as the catalogue calls it: "state_dict/module.bn1"."""
    assert file.checkpoint is not None
    return {
        f"{state_dict.key}/{layer.name}" if state_dict.key else layer.name: layer
        for state_dict in file.checkpoint.state_dicts
        for layer in state_dict.batchnorms
        if layer.running_mean is not None and layer.running_var is not None
    }


def counts(layer: BatchNorm) -> dict[str, object]:
    """The facts of a layer that the catalogue has, counted from the model's vectors."""
    mean, var, gamma, beta = layer.running_mean, layer.running_var, layer.weight, layer.bias
    assert mean is not None
    assert var is not None
    facts: dict[str, object] = {
        "channels": layer.channels,
        "shape": list(var.shape),
        "dtype": var.dtype,
        "mean_dtype": mean.dtype,
        "nbt": None if layer.tracked is None else layer.tracked[0],
        "nbt_shape": None if layer.tracked is None else list(layer.tracked.shape),
        "gamma": gamma is not None,
        "beta": beta is not None,
        "shape_mismatch": len({vector.shape for vector in layer.vectors.values()}) > 1,
        "default_stats": layer.default_stats,
        "default_channels": sum(m == 0 and v == 1 for m, v in zip(mean, var, strict=True)),
        "nonfinite_mean": len(mean.where()),
        "nonfinite_var": len(var.where()),
        "neg_var": sum(v < 0 for v in var),
        "mean_eq0": sum(m == 0 for m in mean),
        "var_eq0": sum(v == 0 for v in var),
        "var_eq1": sum(v == 1 for v in var),
        "var_subnormal": sum(0 < abs(v) < SMALLEST_NORMAL for v in var),
        "var_lt_1e_5": sum(v < 1e-5 for v in var),
        "var_lt_1e_8": sum(v < 1e-8 for v in var),
        "var_lt_1e_10": sum(v < 1e-10 for v in var),
        "min_mean": mean.min,
        "max_mean": mean.max,
        "min_var": var.min,
        "max_var": var.max,
    }
    return facts | gamma_facts(gamma, beta, var)


def gamma_facts(gamma: Vector | None, beta: Vector | None, var: Vector) -> dict[str, object]:
    if gamma is None or beta is None:
        return {}
    return {
        "gamma_nonfinite": len(gamma.where()),
        "gamma_eq0": sum(g == 0 for g in gamma),
        "gamma_neg": sum(g < 0 for g in gamma),
        "gamma_lt_1e_3": sum(abs(g) < 1e-3 for g in gamma),
        "gamma_lt_1e_6": sum(abs(g) < 1e-6 for g in gamma),
        "gamma_all_one": gamma.all_equal(1.0),
        "gamma_all_zero": gamma.all_equal(0.0),
        "beta_all_zero": beta.all_equal(0.0),
        "min_abs_gamma": min(map(abs, gamma)),
        "max_abs_gamma": gamma.largest,
        "both_gamma0_and_var_lt_1e_8": sum(abs(g) < 1e-6 and v < 1e-8 for g, v in zip(gamma, var, strict=True)),
    }


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_every_layer_is_found_and_counted_as_in_the_catalogue(entry: dict) -> None:
    file = opened(entry)
    assert file.problem is None
    assert file.format == FORMATS[entry["container"]]
    found = layers(file)
    assert list(found) == [layer["name"] for layer in entry["bn"]], "names, and their order"
    assert len(found) == entry["bn_layers"]
    assert file.status == ("checked" if found else "nothing-to-check")
    for expected in entry["bn"]:
        facts = counts(found[expected["name"]])
        assert facts == {key: value for key, value in expected.items() if key in facts}


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_ratios_of_every_layer_are_those_of_the_catalogue(entry: dict) -> None:
    found = layers(opened(entry))
    for expected in entry["bn"]:
        layer = found[expected["name"]]
        mean, var = layer.running_mean, layer.running_var
        assert mean is not None
        assert var is not None
        deviations = [sqrt(v + layer.eps) for v in var]
        assert all(map(isfinite, deviations))
        assert max(abs(m) / s for m, s in zip(mean, deviations, strict=True)) == pytest.approx(
            expected["max_abs_mean_over_std"], rel=1e-4
        )
        if layer.weight is not None:
            gains = [abs(g) / s for g, s in zip(layer.weight, deviations, strict=True)]
            assert max(gains) == pytest.approx(expected["max_fold_scale"], rel=1e-4)


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_counters_of_the_file_are_those_of_the_catalogue(entry: dict) -> None:
    tracked = [layer.tracked for layer in layers(opened(entry)).values() if layer.tracked is not None]
    values = {vector[0] for vector in tracked}
    expected = entry["nbt"]
    assert (len(tracked), len(values)) == (expected["count"], expected["distinct"])
    assert (min(values, default=None), max(values, default=None)) == (expected["min"], expected["max"])


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_the_state_dict_a_user_loads_comes_first(entry: dict) -> None:
    checkpoint = opened(entry).checkpoint
    assert checkpoint is not None
    largest = max(entry["containers"], key=entry["containers"].get)
    if not entry["full_module_classes"]:
        assert checkpoint.state_dicts[0].key == largest
        assert len(checkpoint.tensors) == entry["containers"][largest]
    assert [state_dict.role for state_dict in checkpoint.state_dicts] == ["model"]


@pytest.mark.parametrize("entry", OTHERS, ids=name)
def test_other_formats_are_named_and_skipped(entry: dict) -> None:
    file = opened(entry)
    assert file.problem is not None
    if entry["container"] == "unreadable":
        assert (file.status, file.problem.code) == ("not-a-checkpoint", "text")
    else:
        assert (file.status, file.problem.code) == ("skipped", "unsupported")
        assert {"onnx": "ONNX", "hdf5": "HDF5"}[entry["container"]] in str(file.problem)
