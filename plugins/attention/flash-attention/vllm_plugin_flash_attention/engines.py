"""The two implementations of FlashAttention, and what each needs, found out without torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.version import Version

from vllm_core.interfaces.queries import AttentionQuery

CUTE, TORCH = "flash-attn-4", "torch"
OLDEST = "4.0.0b36"  # of flash-attn-4
PAGED = ("9.0",)  # compute capabilities on which flash-attn-4 reads pages through a table and was tried

_DTYPES = ("bfloat16", "float16")
_LARGEST_HEAD = 256


def refusal(query: AttentionQuery) -> str:
    """What neither of them does; "" if nothing."""
    if query.device.type != "cuda":
        return f"FlashAttention is for CUDA, and the device is {query.device.type}"
    if query.kind not in ("full", "sliding_window"):
        return f"{query.kind} caches are not served, only full and sliding_window ones"
    if query.dtype not in _DTYPES:
        return f"dtype {query.dtype} is not one of {', '.join(_DTYPES)}"
    if query.kv_dtype != query.dtype:
        return f"the cache must have the model's dtype, and is {query.kv_dtype} beside {query.dtype}"
    if max(query.k_dim, query.v_dim) > _LARGEST_HEAD:
        return f"heads have up to {_LARGEST_HEAD} elements, not {max(query.k_dim, query.v_dim)}"
    return ""


def refusal_of_cute(query: AttentionQuery) -> str:
    """What stands in the way of flash-attn-4's kernels; "" if nothing does."""
    capability = "{}.{}".format(*query.device.capability) if query.device.capability else "unknown"
    if capability not in PAGED:
        return f"its kernels are used on compute capability {', '.join(PAGED)}, and the device's is {capability}"
    if query.k_dim % 16 or query.v_dim % 16:
        return f"head sizes must be multiples of 16, and are {query.k_dim} and {query.v_dim}"
    try:
        found = version("flash-attn-4")
    except PackageNotFoundError:
        return "the package is not installed"
    if Version(found) < Version(OLDEST):
        return f"version {found} is installed, and the oldest that serves is {OLDEST}"
    if find_spec("nvidia_cutlass_dsl") is None:
        return "it compiles its kernels with nvidia-cutlass-dsl, which is not installed"
    return ""


def refusal_of_torch(query: AttentionQuery) -> str:
    """What torch's kernel for sequences of different lengths does not do; "" if nothing."""
    if query.device.capability is not None and query.device.capability < (8, 0):
        return "needs compute capability 8.0, and {}.{} is what the device has".format(*query.device.capability)
    if query.soft_cap is not None:
        return "its kernel does not cap scores (soft_cap)"
    if query.k_dim != query.v_dim:
        return f"keys and values must be of one size, and are of {query.k_dim} and {query.v_dim}"
    if query.k_dim % 8:
        return f"head sizes must be multiples of 8, and {query.k_dim} is none"
    return ""
