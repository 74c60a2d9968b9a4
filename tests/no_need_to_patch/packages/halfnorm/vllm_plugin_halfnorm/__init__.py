"""One op for one dtype. Importing this module must not import torch."""

from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import Offer, Provides, Rank, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("op_kernel", "halfnorm", "rms_norm for bfloat16")]


@hookimpl
def op_kernel(query: OpQuery) -> Offer | None:
    if query.op != "rms_norm" or query.dtype != "bfloat16" or query.shape.get("weight"):
        return None
    return Offer(name="halfnorm", target="vllm_plugin_halfnorm.kernel:make", rank=Rank.TUNED)
