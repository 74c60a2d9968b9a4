"""The core's own offers, made through the same hooks as everybody's. Importing this imports no torch.

They are what makes the core run by itself: reference or portable, never tuned. A plugin's
offer of a higher rank takes their place.
"""

from __future__ import annotations

import shutil

from vllm_core.interfaces.queries import (
    AttentionQuery,
    ChatQuery,
    CollectiveQuery,
    ExecutorQuery,
    ParserQuery,
    PlatformQuery,
    RopeQuery,
    SamplerQuery,
    SchedulerQuery,
    TokenizerQuery,
    WeightFormatQuery,
)
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("platform", "cpu", "the host's processor"),
        Provides("platform", "cuda", "NVIDIA devices"),
        Provides("executor", "in-process", "one device, no other process"),
        Provides("executor", "uni", "the same, by vLLM's name"),
        Provides("executor", "mp", "a process for each rank, on this host"),
        Provides("executor", "external_launcher", "ranks that torchrun has started, an engine each"),
        Provides("collective", "torch", "torch's own backends: gloo between CPUs, NCCL between GPUs"),
        Provides("attention_backend", "reference", "plain torch on any device, float32 accumulation"),
        Provides("rope_variant", "default", "rotary embedding without scaling"),
        Provides("weight_format", "safetensors", "safetensors files with a config.json"),
        Provides("tokenizer", "auto", "whatever transformers reads"),
        Provides("tokenizer", "hf", "the same, by name"),
        Provides("tokenizer", "slow", "refused: transformers 5 has one implementation"),
        Provides("chat_renderer", "auto", "the model's Jinja template, in a sandbox"),
        Provides("scheduler_policy", "fcfs", "first come, first served"),
        Provides("scheduler_policy", "priority", "smaller priorities first, at the expense of what runs"),
        Provides("sampler", "reference", "plain torch on any device"),
        Provides("tool_parser", "none", "answers are left as they are"),
        Provides("reasoning_parser", "none", "answers are left as they are"),
    ]


@hookimpl
def platform(query: PlatformQuery) -> Offer | Refusal | None:
    # The driver's tool tells whether a device may be there; the platform itself says if it works.
    if query.name == "cuda" or (query.name == "auto" and shutil.which("nvidia-smi")):
        return Offer(name="cuda", target="vllm_core.runner.platforms:CudaPlatform", rank=Rank.TUNED)
    if query.name in ("cpu", "auto"):
        return Offer(name="cpu", target="vllm_core.runner.platforms:CpuPlatform", rank=Rank.REFERENCE)
    return None


@hookimpl
def executor(query: ExecutorQuery) -> Offer | Refusal | None:
    if query.name == "mp" or (query.name == "" and query.world_size > 1):
        if query.device.type != "cpu" and query.world_size > query.device.count:
            return Refusal(
                f"gives each rank a device of this host, which has {query.device.count} for {query.world_size} ranks",
                name="mp",
                remedy="lower --tensor-parallel-size or --pipeline-parallel-size",
            )
        target = "vllm_core.distributed.processes:ProcessesExecutor"
        return Offer(name="mp", target=target, capabilities=frozenset({"processes"}))
    if query.name == "external_launcher":
        target = "vllm_core.distributed.launched:LaunchedExecutor"
        return Offer(name=query.name, target=target, capabilities=frozenset({"launched"}))
    if query.name not in ("", "in-process", "uni"):
        return None
    if query.world_size > 1:
        return Refusal(f"runs one rank, and {query.world_size} were asked for", name=query.name)
    return Offer(name=query.name or "in-process", target="vllm_core.runner.inprocess:InProcessExecutor")


@hookimpl
def collective(query: CollectiveQuery) -> Offer | Refusal | None:
    return Offer(
        name="torch",
        target="vllm_core.distributed.torch_group:TorchGroup",
        rank=Rank.REFERENCE,
        # Where batches may not matter its sums are made in the order of ranks.
        capabilities=frozenset({"batch_invariant"} | ({"graph"} if query.device.type == "cuda" else set())),
    )


@hookimpl
def attention_backend(query: AttentionQuery) -> Offer | Refusal | None:
    if query.kind == "latent":
        return Refusal("latent (MLA) attention has no reference yet", name="reference")
    return Offer(
        name="reference",
        target="vllm_core.layers.reference_attention:ReferenceAttention",
        rank=Rank.REFERENCE,
        takes={"kv.page_layout": ("NHD", "HND")},
        capabilities=frozenset({"lse"}),
    )


@hookimpl
def rope_variant(query: RopeQuery) -> Offer | Refusal | None:
    if query.rope_type != "default":
        return None
    return Offer(name="default", target="vllm_core.layers.rope_default:default_rope", rank=Rank.REFERENCE)


@hookimpl
def weight_format(query: WeightFormatQuery) -> Offer | Refusal | None:
    if not any(name.endswith(".safetensors") for name in query.files):
        return None
    return Offer(name="safetensors", target="vllm_core.weights.checkpoint:SafetensorsCheckpoint")


@hookimpl
def tokenizer(query: TokenizerQuery) -> Offer | Refusal | None:
    if query.mode == "slow":
        reason = "transformers 5 has one implementation of each tokenizer, and takes no notice of use_fast=False"
        return Refusal(reason, name="slow", remedy="leave tokenizer_mode at auto")
    if query.mode not in ("auto", "hf"):
        return None
    return Offer(name=query.mode, target="vllm_core.engine.tokenizer:load_tokenizer", rank=Rank.PORTABLE)


@hookimpl
def chat_renderer(query: ChatQuery) -> Offer | Refusal | None:
    if query.mode != "auto":
        return None
    return Offer(name="auto", target="vllm_core.engine.chat:template_renderer", rank=Rank.PORTABLE)


@hookimpl
def scheduler_policy(query: SchedulerQuery) -> Offer | Refusal | None:
    policies = {"fcfs": "FirstComeFirstServed", "priority": "MostUrgentFirst"}
    if query.policy not in policies:
        return None
    return Offer(name=query.policy, target=f"vllm_core.engine.policy:{policies[query.policy]}")


@hookimpl
def sampler(query: SamplerQuery) -> Offer | Refusal | None:
    return Offer(name="reference", target="vllm_core.ops.sampler:ReferenceSampler", rank=Rank.REFERENCE)


@hookimpl
def tool_parser(query: ParserQuery) -> Offer | None:
    return _no_parser(query)


@hookimpl
def reasoning_parser(query: ParserQuery) -> Offer | None:
    return _no_parser(query)


def _no_parser(query: ParserQuery) -> Offer | None:
    if query.name not in ("", "none"):
        return None
    return Offer(name="none", target="vllm_core.engine.parsers:no_parser", rank=Rank.REFERENCE)
