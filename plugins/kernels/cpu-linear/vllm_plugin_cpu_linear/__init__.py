"""Matrix products on CPUs for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("op_kernel", "onednn", "products with weights that are packed once, through oneDNN")]


@hookimpl
def op_kernel(query: OpQuery) -> Offer | Refusal | None:
    if query.op != "linear" or query.device.type != "cpu":
        return None
    if reason := _refusal(query.dtype):
        return Refusal(reason, name="onednn", remedy="the core's own product serves it")
    return Offer(name="onednn", target="vllm_plugin_cpu_linear.kernel:PackedLinear", rank=Rank.PORTABLE)


def _refusal(dtype: str) -> str:
    import torch

    if dtype not in ("float32", "bfloat16"):
        return f"dtype {dtype} is neither float32 nor bfloat16"
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch is built without oneDNN"
    if dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "oneDNN does not multiply bfloat16 on this processor"
    return ""
