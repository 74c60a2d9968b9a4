"""Native kernels on x86-64 CPUs for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import AttentionQuery, CollectiveQuery, OpQuery, SamplerQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl
from vllm_plugin_cpu_native.limits import (
    MOST_SUMMED,
    attention_limits,
    build_limits,
    dtype_limits,
    layer_limits,
    machine_limits,
)

HOOK_API = 1

_TARGETS = {
    "linear": "vllm_plugin_cpu_native.linear:NativeLinear",
    "scaled_linear": "vllm_plugin_cpu_native.linear:NativeScaledLinear",
    "rms_norm": "vllm_plugin_cpu_native.norm:native_rms_norm",
    "add_rms_norm": "vllm_plugin_cpu_native.norm:native_add_rms_norm",
    "decoder_attention": "vllm_plugin_cpu_native.decoder_attention:native_decoder_attention",
    "gated_mlp": "vllm_plugin_cpu_native.gated_mlp:native_gated_mlp",
}


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("op_kernel", "native", "products and halves of decoder layers, in C++ for AVX-512"),
        Provides("collective", "shared-memory", "sums over the ranks of one host"),
        Provides("sampler", "native", "temperature, min-p, top-k and top-p without sorting, in C++ for AVX-512"),
        Provides("attention_backend", "native", "paged attention that reads pages where they lie, in C++ for AVX-512"),
    ]


@hookimpl
def op_kernel(query: OpQuery) -> Offer | Refusal | None:
    if query.op not in _TARGETS or query.device.type != "cpu":
        return None
    if reason := machine_limits(query.dtype) or layer_limits(query):
        return Refusal(reason, name="native", remedy="other kernels or the core's own operations serve it")
    return Offer(name="native", target=_TARGETS[query.op], rank=Rank.TUNED, capabilities=frozenset({"batch_invariant"}))


@hookimpl
def attention_backend(query: AttentionQuery) -> Offer | Refusal | None:
    if query.device.type != "cpu":
        return None
    if reason := machine_limits(query.dtype) or attention_limits(query):
        return Refusal(reason, name="native", remedy="other backends or the core's reference serve it")
    return Offer(
        name="native",
        target="vllm_plugin_cpu_native.attention:NativeAttention",
        rank=Rank.TUNED,
        capabilities=frozenset({"batch_invariant", "lse"}),
        takes={"kv.page_layout": ("NHD",)},
    )


@hookimpl
def collective(query: CollectiveQuery) -> Offer | Refusal | None:
    if query.op != "all_reduce" or query.device.type != "cpu":
        return None
    if reason := build_limits() or dtype_limits(query.dtype):
        return Refusal(reason, name="shared-memory", remedy="torch.distributed adds up")
    return Offer(
        name="shared-memory",
        target="vllm_plugin_cpu_native.together:SharedMemorySum",
        rank=Rank.TUNED,
        capabilities=frozenset({"batch_invariant"}),
        options={"max_bytes": MOST_SUMMED},
    )


@hookimpl
def sampler(query: SamplerQuery) -> Offer | Refusal | None:
    if query.device.type != "cpu":
        return None
    if reason := machine_limits("float32"):
        return Refusal(reason, name="native", remedy="the core's own sampler draws")
    return Offer(
        name="native",
        target="vllm_plugin_cpu_native.sampling:NativeSampler",
        rank=Rank.TUNED,
        capabilities=frozenset({"batch_invariant"}),
    )
