"""What the core asks plugins: one immutable query a hook. Plain data, no torch.

dtypes are torch's names without the prefix ("bfloat16"); sizes are in elements unless said.
Longer than other files, so that all questions stand in one place; nothing but records is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vllm_core.interfaces.device import Device


@attrs.frozen(kw_only=True)
class ModelQuery:
    architectures: tuple[str, ...]  # config.json "architectures"
    config: Mapping[str, Any]  # the whole config.json
    device: Device


@attrs.frozen(kw_only=True)
class ModelConfigQuery:
    path: str  # a file or a folder
    files: tuple[str, ...]  # relative names, sorted
    model_type: str  # config.json "model_type", "" without a config.json


@attrs.frozen(kw_only=True)
class ModelProcessorQuery:
    architecture: str
    config: Mapping[str, Any]
    modalities: tuple[str, ...]  # in use: "image", "audio", "video"
    path: str  # of the checkpoint


@attrs.frozen(kw_only=True)
class WeightFormatQuery:
    path: str  # a file or a folder
    files: tuple[str, ...]  # relative names, sorted


@attrs.frozen(kw_only=True)
class QuantizationQuery:
    method: str  # config.json "quantization_config"."quant_method", or the user's --quantization
    config: Mapping[str, Any]
    dtype: str
    device: Device


@attrs.frozen(kw_only=True)
class AttentionQuery:
    """One distinct cache group. No block size: offers list theirs and the cache manager picks."""

    kind: str  # "full", "sliding_window", "latent", "cross"
    num_heads: int
    num_kv_heads: int
    k_dim: int
    v_dim: int
    window: int | None  # tokens a query sees, itself included; None: all
    causal: bool
    soft_cap: float | None
    sinks: bool
    dtype: str
    kv_dtype: str
    device: Device
    batch_invariant: bool = False  # only offers with the capability of this name will be taken


@attrs.frozen(kw_only=True)
class CacheLayoutQuery:
    kind: str
    layout: str  # a name that some attention offer takes
    dtype: str
    device: Device


@attrs.frozen(kw_only=True)
class RopeQuery:
    rope_type: str  # "default", "linear", "yarn", ...
    head_dim: int
    params: Mapping[str, Any]  # rope_parameters of config.json
    max_position: int  # room for drafts included
    max_model_len: int = 0  # tokens of the longest sequence, by which a variant may choose its table


@attrs.frozen(kw_only=True)
class OpQuery:
    """One op of the op table (``vllm_core.ops``) with the shapes that are fixed for this layer."""

    op: str
    dtype: str
    device: Device
    shape: Mapping[str, int | float | str | bool | None]
    batch_invariant: bool = False  # only offers with the capability of this name will be taken


@attrs.frozen(kw_only=True)
class RouterQuery:
    router: str  # "softmax", "grouped_sigmoid", ...
    num_experts: int  # of the layer, over all ranks
    top_k: int
    params: Mapping[str, int | float | str | bool | None]  # groups, renormalization, scale
    device: Device


@attrs.frozen(kw_only=True)
class ExpertsQuery:
    num_experts: int  # on this rank
    top_k: int
    hidden: int
    intermediate: int
    dtype: str
    quantization: str
    router: str
    device: Device


@attrs.frozen(kw_only=True)
class MixerQuery:
    mixer: str  # "mamba2", "gated_delta_net", ...
    shape: Mapping[str, int]
    dtype: str
    device: Device


@attrs.frozen(kw_only=True)
class ProposerQuery:
    method: str
    num_drafts: int  # tokens a step
    architecture: str  # of the target model
    config: Mapping[str, Any]  # speculative_config, less method and num_speculative_tokens
    device: Device


@attrs.frozen(kw_only=True)
class SamplerQuery:
    vocab_size: int
    device: Device
    options: Mapping[str, Any] = attrs.field(factory=dict)  # of the offer that was chosen; empty while it is asked for
    batch_invariant: bool = False  # only offers with the capability of this name will be taken


@attrs.frozen(kw_only=True)
class LogitsProcessorQuery:
    name: str
    vocab_size: int
    max_rows: int
    device: Device
    options: Mapping[str, Any] = attrs.field(factory=dict)  # of the offer that was chosen; empty while it is asked for


@attrs.frozen(kw_only=True)
class GrammarQuery:
    kind: str  # one of ``interfaces.grammar.KINDS``
    vocab_size: int  # of the logits


@attrs.frozen(kw_only=True)
class ParserQuery:
    """For tool and reasoning parsers."""

    name: str  # what the user asked for, or "" to choose from the model
    architectures: tuple[str, ...]
    chat_template: str


@attrs.frozen(kw_only=True)
class MediaLoaderQuery:
    modality: str  # "image", "audio", "video"
    params: Mapping[str, Any]  # the user's settings for this modality


@attrs.frozen(kw_only=True)
class MediaQuery:
    modality: str  # "image", "audio", "video"
    architecture: str
    config: Mapping[str, Any]  # preprocessor_config.json with the user's overrides


@attrs.frozen(kw_only=True)
class ExecutorQuery:
    name: str  # what the user asked for, or ""
    world_size: int
    nodes: int
    device: Device


@attrs.frozen(kw_only=True)
class ConnectorQuery:
    name: str
    role: str  # "producer", "consumer", "both"
    config: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class MetricsQuery:
    model: str
    config: Mapping[str, Any]  # max_model_len, max_num_seqs, max_num_batched_tokens, dtype
    options: Mapping[str, Any] = attrs.field(factory=dict)  # of the offer; empty while it is asked for


@attrs.frozen(kw_only=True)
class PlatformQuery:
    name: str  # what the user asked for ("auto": the best that is present)


@attrs.frozen(kw_only=True)
class TokenizerQuery:
    mode: str  # "auto" or a mode that a plugin names
    path: str
    files: tuple[str, ...]
    architectures: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ChatQuery:
    mode: str  # "auto" or a mode that a plugin names
    architectures: tuple[str, ...]
    template: str  # the chat template, the user's before the model's; "" if there is none


@attrs.frozen(kw_only=True)
class SchedulerQuery:
    policy: str
    options: Mapping[str, Any] = attrs.field(factory=dict)  # of the offer that was chosen; empty while it is asked for


@attrs.frozen(kw_only=True)
class PoolerQuery:
    task: str  # "embed", "classify", "score", "reward"
    architectures: tuple[str, ...]
    config: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class CollectiveQuery:
    op: str  # "all_reduce", "all_gather", "all_to_all", ...
    group: str  # "tp", "pp", "ep", ...
    world_size: int
    dtype: str
    device: Device


@attrs.frozen(kw_only=True)
class AllToAllQuery:
    world_size: int  # ranks of the expert group
    num_experts: int  # over all ranks
    top_k: int
    hidden: int
    max_tokens: int  # a rank and step
    dtype: str
    device: Device


@attrs.frozen(kw_only=True)
class AdapterQuery:
    kind: str  # "lora"
    max_adapters: int  # in one batch
    max_rank: int
    config: Mapping[str, Any]  # an adapter's own configuration file; {} when the engine is built
    dtype: str
    device: Device


@attrs.frozen(kw_only=True)
class ResolverQuery:
    name: str
    base_model: str
    config: Mapping[str, Any]
