"""Which backend serves a device and an activation type."""

from __future__ import annotations

import functools
import logging
import os
from typing import Literal

import torch

from zenray.errors import ConfigError
from zenray.ops.backend import Backend
from zenray.ops.build import KernelsUnavailable
from zenray.ops.cpu import CpuBackend, TorchCpuBackend
from zenray.ops.reference import ReferenceBackend

KernelChoice = Literal["auto", "compiled", "torch", "reference"]
_CHOICES = ("auto", "compiled", "torch", "reference")
_log = logging.getLogger(__name__)


def backend_for(device: str, dtype: torch.dtype, kernels: KernelChoice | None = None) -> Backend:
    """The fastest backend for activations of `dtype` on `device` (a torch device string).

    kernels: "compiled" insists on the C++ kernels, "torch" on torch's operations, "reference" on the
    oracle; "auto" falls back from compiled to torch with one warning. None reads $ZENRAY_KERNELS.
    Errors: ConfigError for another choice, or when "compiled" is wanted and cannot be had.
    """
    choice = kernels or os.environ.get("ZENRAY_KERNELS") or "auto"
    if choice not in _CHOICES:
        raise ConfigError(f"ZENRAY_KERNELS is {choice!r}; allowed: {', '.join(_CHOICES)}")
    if torch.device(device).type != "cpu" or dtype != torch.bfloat16 or choice == "reference":
        return ReferenceBackend(dtype)
    if choice == "torch":
        return TorchCpuBackend(dtype)
    try:
        return CpuBackend()
    except KernelsUnavailable as error:
        if choice == "compiled":
            raise ConfigError(f"ZENRAY_KERNELS is 'compiled', but {error}") from error
        _warn_once(str(error))
        return TorchCpuBackend(dtype)


@functools.cache
def _warn_once(reason: str) -> None:
    _log.warning("compiled kernels are off, decoding will be several times slower: %s", reason)
