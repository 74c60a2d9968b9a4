"""The compiled kernels and the records they read (csrc/*.h has their twins)."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_float, c_int, c_long, c_uint64, c_void_p
from functools import cache
from pathlib import Path

PATH = Path(__file__).with_name("_native.so")


class Norm(ctypes.Structure):
    _fields_ = (("weight", c_void_p), ("is_float", c_int), ("eps", c_float))


class Linear(ctypes.Structure):
    """``scales`` of a weight of whole numbers, else null."""

    _fields_ = (("weight", c_void_p), ("scales", c_void_p), ("bias", c_void_p), ("out", c_long), ("in_", c_long))


class Shape(ctypes.Structure):
    """Of one group's attention."""

    _fields_ = (
        *((name, c_long) for name in ("heads", "kv_heads", "k_dim", "v_dim", "block_size")),
        ("scale", c_float),
        ("soft_cap", c_float),  # 0: none
        ("window", c_long),  # 0: none
        ("causal", c_int),
    )


class Pages(ctypes.Structure):
    _fields_ = (("k", c_void_p), ("v", c_void_p), ("k_stride", c_long), ("v_stride", c_long))


class Step(ctypes.Structure):
    """A step as one cache group sees it, with the items that attention is split into."""

    _fields_ = (
        *((name, c_void_p) for name in ("query_starts", "kv_lens", "block_table", "slots", "items")),
        *((name, c_long) for name in ("sequences", "tokens", "table_stride", "num_items")),
        ("next", c_long),
    )


class AttentionLayer(ctypes.Structure):
    _fields_ = (
        ("hidden", c_long),
        *((name, Norm) for name in ("norm", "q_norm", "k_norm", "post_norm")),
        ("qkv", Linear),
        ("out", Linear),
        ("shape", Shape),
        ("rotary_half", c_long),
        ("interleaved", c_int),
        ("sinks", c_void_p),
    )


class MlpLayer(ctypes.Structure):
    _fields_ = (
        ("hidden", c_long),
        ("inner", c_long),
        ("norm", Norm),
        ("post_norm", Norm),
        ("gate_up", Linear),
        ("down", Linear),
        ("act", c_int),
    )


class Sampling(ctypes.Structure):
    """Parameters of rows, one element each."""

    _fields_ = tuple((name, c_void_p) for name in ("temperature", "top_k", "top_p", "min_p", "noise"))


_SIGNATURES = {
    "native_threads": [c_int],
    "native_items": [POINTER(Step), POINTER(Shape), c_void_p, c_long],
    "native_linear": [c_int, c_void_p, c_long, c_void_p, c_void_p, c_void_p, c_long, c_long, c_void_p],
    "native_write": [c_int, c_void_p, c_void_p, c_long, c_long, POINTER(Step), POINTER(Shape), POINTER(Pages)],
    "native_attend": [
        *(c_int, c_void_p, c_long, POINTER(Step), POINTER(Shape), POINTER(Pages)),
        *(c_void_p, c_void_p, c_void_p),
    ],
    "native_decoder_attention": [
        *(c_int, POINTER(AttentionLayer), POINTER(Step), POINTER(Pages)),
        *(c_void_p, c_void_p, c_int, c_void_p, c_void_p),
    ],
    "native_sample": [c_int, c_void_p, c_long, c_long, POINTER(Sampling), c_void_p, c_void_p],
    "native_rms_norm": [c_int, c_void_p, c_void_p, c_void_p, c_long, c_long, c_void_p, c_float],
    "native_gated_mlp": [c_int, POINTER(MlpLayer), c_long, c_void_p, c_void_p, c_int],
    "native_all_reduce": [c_int, c_void_p, c_long, c_long, c_long, c_uint64, c_void_p, c_long, c_double],
}


@cache
def load() -> ctypes.CDLL:
    """The library, loaded once a process."""
    found = ctypes.CDLL(str(PATH))
    for name, arguments in _SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes = arguments
        function.restype = c_long if name in ("native_items", "native_all_reduce") else None
    return found


def with_threads() -> ctypes.CDLL:
    """The library, with as many threads as torch uses in this process."""
    import torch

    found = load()
    found.native_threads(torch.get_num_threads())
    return found
