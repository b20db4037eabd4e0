"""Kernels: the only place that chooses one. Import `backend_for` and `pack`."""

from __future__ import annotations

from zenray.ops.backend import Backend
from zenray.ops.batch import LayerCache, StepBatch
from zenray.ops.choose import backend_for
from zenray.ops.packing import (
    FORMATS,
    QuantisationError,
    mixed_format,
    pack,
    pack_int4_from_groups,
    quantisation_error,
    unpack,
)
from zenray.ops.weights import PackedWeight

__all__ = [
    "FORMATS",
    "Backend",
    "LayerCache",
    "PackedWeight",
    "QuantisationError",
    "StepBatch",
    "backend_for",
    "mixed_format",
    "pack",
    "pack_int4_from_groups",
    "quantisation_error",
    "unpack",
]
