"""Hostile and odd files, made on the spot: every room registers its makers in CASES."""

from . import (  # noqa: F401
    bombs,
    executing,
    legacies,
    names,
    numpy_pickles,
    pickles,
    places,
    safetensors,
    shards,
    strangers,
    tars,
    tensors,
    zip_contents,
    zips,
)
from .case import CASES, Case, Expected

__all__ = ["CASES", "Case", "Expected"]
