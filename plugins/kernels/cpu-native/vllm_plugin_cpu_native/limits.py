"""What the kernels cannot do, as the reason of a refusal; "" if they can."""

from __future__ import annotations

from vllm_core.interfaces.queries import AttentionQuery, OpQuery
from vllm_plugin_cpu_native import library

MOST_SUMMED = 4 << 20  # bytes of a tensor that ranks add up in shared memory; two places of it a rank
MOST_GROUP = 768  # query heads a key/value head: rows that an item of attention has room for


def build_limits() -> str:
    if not library.PATH.exists():
        return "it was built without its kernels: they need a C++ compiler and Linux on x86-64"
    return ""


def dtype_limits(dtype: str) -> str:
    return "" if dtype in ("float32", "bfloat16") else f"dtype {dtype} is neither float32 nor bfloat16"


def machine_limits(dtype: str) -> str:
    if reason := build_limits():
        return reason
    level = library.load().native_supported()
    if not level:
        return "this processor has no AVX-512"
    if reason := dtype_limits(dtype):
        return reason
    if dtype == "bfloat16" and level < 2:
        return "this processor does not multiply bfloat16 (AVX512_BF16)"
    return ""


def attention_limits(query: AttentionQuery) -> str:
    if query.kind not in ("full", "sliding_window"):
        return f"{query.kind} caches are not served, only full and sliding_window ones"
    if query.kv_dtype != query.dtype:
        return f"the cache must have the model's dtype, and is {query.kv_dtype} beside {query.dtype}"
    if query.num_heads > MOST_GROUP * query.num_kv_heads:
        return f"more than {MOST_GROUP} query heads share a key/value head"
    return ""


def layer_limits(query: OpQuery) -> str:
    """Of whole layers; single operations have none."""
    shape = query.shape
    if "linear" not in shape:
        return ""
    for name in ("norm", "qk_norm", "post_norm"):
        if shape.get(name) not in (None, "RMSNorm", "OffsetRMSNorm"):
            return f"{name} is a {shape[name]}, and only RMSNorm is computed within a layer"
    if others := sorted(set(str(shape["linear"]).split("+")) - {"DenseLinear", "ScaledLinear"}):
        return f"its matrices are multiplied by {', '.join(others)}, not as they are stored"
    return ""
