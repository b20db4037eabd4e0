"""The compiled kernels as Python functions taking addresses and numbers."""

from __future__ import annotations

import ctypes
import functools
import struct
from pathlib import Path

import torch

from zenray.ops import build
from zenray.ops.weights import PackedWeight

_P, _I, _F, _D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
_SIGNATURES = {
    # sum, data, bytes, threads
    "read": (_P, _P, _I, _I),
    # out, token ids, tokens, columns, rows, data, scales, supers or None, threads; returns the number of bad ids
    "embed": (_P, _P, _I, _I, _I, _P, _P, _P, _I),
    # out, x, residual or None, weight, weight is float32, rows, width, eps, threads
    "rms_norm": (_P, _P, _P, _P, _I, _I, _I, _F, _I),
    # out, gate_up, rows, width, threads
    "silu_mul": (_P, _P, _I, _I, _I),
    # q, k, positions, cos_sin, tokens, heads, kv heads, head dim, q stride, k stride, threads
    "rope": (_P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _I),
    # k, v, keys, values, slots, tokens, kv heads, head dim, block size, k stride, v stride, threads
    "write_kv": (_P, _P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _I),
    # out, q, keys, values, tables, query starts, context lengths, sequences, heads, kv heads, head dim, block size,
    # q stride, table stride, scale, threads
    "attention": (_P, _P, _P, _P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _I, _F, _I),
    # out, out is float32, x, tokens, matrix, threads
    "linear": (_P, _I, _P, _I, _P, _I),
    # ids, weights, x, router, tokens, width, experts, chosen, normalise, threads
    "route": (_P, _P, _P, _P, _I, _I, _I, _I, _I, _I),
    # out, x, matrices, counts, experts, rows, threads
    "swiglu_rows": (_P, _P, _P, _P, _I, _P, _I),
    # out, y, pairs, weights, tokens, chosen, width, threads
    "combine": (_P, _P, _P, _P, _I, _I, _I, _I),
    # gold logprobs, entropies, head counts, head ids, head logprobs, tail masses, tail ids, logits, targets, uniforms,
    # rows, columns, head entries, head mass, samples, threads
    "summarise": (_P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _I, _I, _I, _D, _I, _D, _I),
}


class Kernels:
    """The library's functions, typed."""

    def __init__(self, path: Path) -> None:
        try:
            self.library = ctypes.CDLL(str(path))
        except OSError as error:
            raise build.KernelsUnavailable(f"cannot load {path}: {error}") from error
        for name, arguments in _SIGNATURES.items():
            function = getattr(self.library, f"zenray_{name}")
            function.argtypes, function.restype = arguments, _I if name == "embed" else None
            setattr(self, name, function)

    def __getattr__(self, name: str) -> ctypes._FuncPointer:  # for the type checker: set in __init__
        raise AttributeError(name)


_MATRIX = struct.Struct("7q")
_FORMATS = {"dense": 0, "int8": 1, "int4": 2}


def matrix(weight: PackedWeight) -> bytes:
    """`struct Matrix` of csrc/linear.h: addresses, so the weight must outlive its use."""
    assert weight.format != "dense" or weight.data.dtype is torch.bfloat16, weight.data.dtype
    optional = (weight.scales, weight.supers, weight.bias)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in optional]
    return _MATRIX.pack(_FORMATS[weight.format], *weight.shape, weight.data.data_ptr(), *addresses)


@functools.cache
def kernels() -> Kernels:
    """The kernels, built at the first call in any process. Errors: KernelsUnavailable."""
    return Kernels(build.library())
