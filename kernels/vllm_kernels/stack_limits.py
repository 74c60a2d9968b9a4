"""What the kernel that is all decoder layers cannot do. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.stack_sizes import ACTIVATIONS, StackShape

MOST_GROUP = 8  # query heads a key/value head

_ONLY: dict[str, tuple[Any, ...]] = {
    "attention.norm": ("RMSNorm",),
    "attention.qk_norm": ("RMSNorm", None),
    "attention.post_norm": (None,),
    "attention.causal": (True,),
    "attention.window": (None,),
    "attention.soft_cap": (None,),
    "attention.sinks": (False,),
    "attention.linear": ("DenseLinear",),
    "attention.head_dim": (64, 128),
    "mlp.norm": ("RMSNorm",),
    "mlp.post_norm": (None,),
    "mlp.linear": ("DenseLinear",),
    "mlp.act": ACTIVATIONS,
}


def stack_limits(query: OpQuery) -> str:
    """Why all layers cannot be one kernel; "" if they can."""
    if query.device.capability is None or query.device.capability[0] != 9:
        return f"it copies with instructions of sm_90, and the device has capability {query.device.capability}"
    if query.dtype != "bfloat16":
        return f"dtype {query.dtype} is not bfloat16"
    for name, known in _ONLY.items():
        if query.shape[name] not in known:
            return f"{name} is {query.shape[name]!r}; served are {', '.join(map(repr, known))}"
    return _sizes(query.shape)


def _sizes(shape: Mapping[str, Any]) -> str:
    stack = StackShape.of(shape)
    sizes = {
        "hidden": stack.hidden,
        "intermediate": stack.intermediate,
        "heads x head_dim": stack.heads * stack.head_dim,
    }
    for name, size in sizes.items():
        if size % 32:
            return f"{name} is {size}, not a multiple of 32"
    if stack.heads % stack.kv_heads or stack.heads // stack.kv_heads > MOST_GROUP:
        return f"{stack.heads} query heads share {stack.kv_heads} key/value heads; at most {MOST_GROUP} may share one"
    if not stack.variants():
        return f"{stack.fixed_bytes(1):,} bytes of activations leave no shared memory for weights"
    return ""
