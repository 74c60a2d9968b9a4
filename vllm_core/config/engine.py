"""The settings of an engine. Names follow vLLM's where the meaning is the same.

Longer than other files, so that all of them stand in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class EngineSettings:
    """What decides how a model is loaded and served. Every field is a flag, a key and an ``LLM`` argument."""

    model: str = setting(
        "",
        group="model",
        help="A folder or file with a checkpoint, the name of a bundled model, or a model id on the Hub.",
    )
    tokenizer: str | None = setting(
        None, group="model", help="A folder or Hub id to take the tokenizer from, instead of the model's own."
    )
    tokenizer_mode: str = setting(
        "auto",
        group="model",
        help="Which tokenizer implementation reads the files: auto, hf (transformers'), or one that a plugin offers.",
    )
    tokenizer_revision: str | None = setting(
        None,
        group="model",
        help="Branch, tag or commit on the Hub to take the tokenizer from. Default: the model's, for its own.",
    )
    skip_tokenizer_init: bool = setting(
        False, group="model", help="Do without a tokenizer: prompts are token ids and outputs have no text."
    )
    chat_template: str | None = setting(
        None,
        group="model",
        help="A file with a Jinja template for conversations, or the template itself, instead of the model's own.",
    )
    tool_call_parser: str | None = setting(
        None,
        group="model",
        help="Parser of tool calls in answers to chats with tools, or none. Default: the one made for the model's chat"
        " template, if it is installed.",
    )
    reasoning_parser: str | None = setting(
        None,
        group="model",
        help="Parser that tells reasoning from the answer in chats, or none. Default: the one made for the model's chat"
        " template, if it is installed.",
    )
    revision: str | None = setting(
        None, group="model", help="Branch, tag or commit of a model on the Hub; refused for local files."
    )
    download_dir: str | None = setting(
        None, group="model", help="Folder for downloads from the Hub, instead of its cache."
    )
    load_format: str = setting(
        "auto", group="model", help="How weights are stored: auto, dummy (random numbers), or a weight format's name."
    )
    dtype: str = setting(
        "auto",
        group="model",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="Number format of weights and activations. auto: the checkpoint's, where the device computes it well.",
    )
    quantization: str | None = setting(
        None, group="model", help="Quantization method, instead of the one the checkpoint names."
    )
    hf_overrides: dict[str, Any] | Callable[[Any], Any] = setting(
        {},
        group="model",
        function=True,
        help="Fields that replace those of config.json; tables are merged into its tables. From Python also a function"
        " that gets the configuration and returns it changed.",
    )
    generation_config: str = setting(
        "auto",
        group="model",
        help="Where default sampling parameters come from: auto reads the model's generation_config.json, none (or"
        " vllm) ignores it, and a folder's is read instead. The tokens that end a text stay the model's with none.",
    )
    override_generation_config: dict[str, Any] = setting(
        {}, group="model", help="Fields over those of generation_config.json, or alone if that is ignored."
    )
    max_model_len: int | None = setting(
        None,
        group="model",
        low=1,
        unit="tokens",
        help="Longest sequence, prompt and output together. Default: what the model was made for.",
    )
    seed: int = setting(
        0, group="model", low=0, high=2**63 - 1, help="Seed of requests that bring none, and of dummy weights."
    )

    device: str = setting("auto", group="device", help="Platform to run on. auto: the best that is present.")
    enforce_eager: bool = setting(
        False,
        group="device",
        help="Run every step op by op. Default: on CUDA, steps of usual sizes are recorded as CUDA graphs when they are"
        " first needed, which costs some ten milliseconds each, and then launched as one.",
        trade="On: easier to debug, less memory. Off: faster, above all with few requests.",
    )
    batch_invariant: bool = setting(
        False,
        group="device",
        help="Give a request the same tokens, bit for bit, whatever runs beside it: only kernels, attention backends"
        " and samplers that say so of themselves are used, and what has none is an error at the start.",
        trade="On: reproducible results. Off: faster kernels, and more models.",
    )
    attention_backend: str | None = setting(None, group="device", help="Attention backend. Default: the best offered.")
    tensor_parallel_size: int = setting(1, group="device", low=1, help="Ranks that split each layer.")
    pipeline_parallel_size: int = setting(1, group="device", low=1, help="Ranks that split the stack of layers.")
    pipeline_layers: str | None = setting(
        None,
        group="device",
        help="Layers of each pipeline stage, such as 17,15. Default: shares of equal cost, the output head counted.",
    )
    enable_expert_parallel: bool = setting(
        False, group="device", help="Split experts over ranks, each whole on one. Refused so far: no model has experts."
    )
    decode_context_parallel_size: int = setting(
        1, group="device", low=1, help="Ranks that split the cache of each sequence. Refused above 1 so far."
    )
    data_parallel_size: int = setting(
        1,
        group="device",
        low=1,
        high=1024,
        unit="engines",
        help="Engines behind one server, on all hosts together. Each has the whole model, a process and devices of its"
        " own.",
        trade="More: more requests at once, and a server that outlives one of them. One: less memory.",
    )
    data_parallel_size_local: int | None = setting(
        None, group="device", low=0, unit="engines", help="Of these, the ones on this host. Default: all."
    )
    data_parallel_start_rank: int | None = setting(
        None, group="device", low=0, help="Number of the first engine of a further node (vllm-core serve --headless)."
    )
    data_parallel_rank: int | None = setting(
        None,
        group="device",
        low=0,
        help="Number of the one engine that this server runs, where a balancer of yours stands before one server for"
        " each engine.",
    )
    data_parallel_external_lb: bool = setting(
        False, group="device", help="Say that a balancer of yours does so; data_parallel_rank alone says it as well."
    )
    data_parallel_address: str | None = setting(
        None,
        group="device",
        help="Address of the first node, where it waits for engines of further ones, and they find it.",
    )
    data_parallel_rpc_port: int = setting(
        29550, group="device", low=1, high=65535, help="Port of the first node for engines of further ones."
    )
    data_parallel_secret_file: str | None = setting(
        None,
        group="device",
        help="File, readable by its owner only, with a secret of 32 bytes at least that all nodes have: it lets engines"
        " of further nodes in and encrypts what they send.",
    )
    data_parallel_routing: str = setting(
        "load",
        group="device",
        choices=("load", "prefix"),
        help="Which engine gets a request. load: the one with the fewest waiting requests and tokens to be computed."
        " prefix: one that has computed the same beginning before, unless it is much busier than others.",
        trade="prefix: prompts with long common beginnings are found in the cache. load: the most even spread.",
    )
    distributed_executor_backend: str | None = setting(
        None,
        group="device",
        help="Executor that runs the model's processes. Default: in-process (uni) for one rank, mp for several on this"
        " host.",
    )
    collective_timeout: float = setting(
        10.0,
        group="device",
        low=0.1,
        unit="seconds",
        help="How long a rank waits for another within a step, before the engine ends with the name of the one that"
        " hangs.",
        trade="Lower: a hang is told sooner. Higher: no false alarm where ranks share busy processors.",
    )

    max_num_seqs: int | None = setting(
        None,
        group="scheduler",
        low=1,
        high=65_536,
        unit="requests",
        help="Most requests that run at the same time. Each takes a token of every step, so no more run than"
        " max_num_batched_tokens. Default: the platform's choice, 64 on CPUs and 256 on CUDA.",
        trade="Higher: better throughput. Lower: less memory for rows, faster answers under load.",
    )
    max_num_batched_tokens: int | None = setting(
        None,
        group="scheduler",
        low=1,
        unit="tokens per step",
        help="Most prompt and output tokens computed in one step. Default: the platform's, for steps of about 0.2 s.",
        trade="Higher: better prefill throughput. Lower: shorter worst gap between two output tokens.",
    )
    scheduling_policy: str = setting(
        "fcfs",
        group="scheduler",
        help="Which request runs first. fcfs: the one that came first. priority: the one with the smallest priority,"
        " in the place of running ones if need be. Plugins offer others.",
    )
    max_waiting_requests: int | None = setting(
        None,
        group="scheduler",
        low=0,
        unit="requests",
        help="Requests that may wait for a free row; more are refused. Default: any number.",
        trade="Lower: callers learn early that the engine is overloaded.",
    )
    async_scheduling: bool = setting(
        True,
        group="scheduler",
        help="Launch a step before the last one's tokens have reached the host.",
        trade="Off: the plain loop, one step at a time, easier to debug.",
    )

    max_logprobs: int = setting(
        20,
        group="sampling",
        low=-1,
        unit="tokens",
        help="Most tokens whose log-probabilities a request may ask for at each position; -1: any number.",
    )
    sampler: str | None = setting(
        None,
        group="sampling",
        help="Who draws tokens from logits, by name; without a name the offer of the highest rank.",
    )
    logits_processors: list[str] = setting(
        [],
        group="sampling",
        help="Plugins that change logits before tokens are drawn, by name, in the order in which they apply. Their"
        " parameters come with each request, in SamplingParams(extra_args={...}).",
    )

    structured_outputs_config: dict[str, Any] = setting(
        {},
        group="sampling",
        help="How outputs are held to grammars. backend: auto, or the name of one; disable_fallback,"
        " disable_any_whitespace, disable_additional_properties and enable_in_reasoning as in vLLM; compile_seconds"
        " (0.8) and compile_threads (4) for specifications; cached_grammars (256) and cached_mib (512) of what was"
        " compiled; warm (true), whether servers make backends ready ahead of the first request. More in"
        " docs/structured-outputs.md.",
    )

    block_size: int | None = setting(
        None, group="cache", low=1, unit="tokens", help="Tokens a cache page. Default: what the backends agree on."
    )
    enable_prefix_caching: bool = setting(
        True, group="cache", help="Reuse the cache of prompts that begin with the same tokens."
    )
    kv_cache_memory: int | None = setting(
        None,
        group="cache",
        low=1,
        unit="bytes",
        help="Memory for the cache of one device. Default: the platform's choice.",
    )
    gpu_memory_utilization: float | None = setting(
        None,
        group="cache",
        low=0.01,
        high=1,
        help="Share of a device's memory that the process takes in all: weights, cache, activations, recorded steps and"
        " the driver's own; on a CPU, of the memory that it may use. Default: the platform's choice. Excludes"
        " kv_cache_memory.",
    )
    kv_cache_dtype: str = setting(
        "auto", group="cache", help="Number format of the cache. auto, and nothing else yet: that of the activations."
    )
    speculative_config: dict[str, Any] | None = setting(
        None,
        group="speculation",
        help='Draft proposer: {"method": NAME, "num_speculative_tokens": K} and the method\'s own keys.',
    )
    prefer: dict[str, list[str]] = setting(
        {}, group="plugins", help="Order among equally ranked offers, by hook: {attention_backend: [name, ...]}."
    )
    plugins: dict[str, Any] = setting(
        {},
        group="plugins",
        help="Which plugins may be used, as in the table [plugins] of vllm.toml, whose keys it replaces: allow, block"
        " and require are lists of plugins, distributions or hook:name; prefer is as above.",
    )
    plugin: dict[str, dict[str, Any]] = setting(
        {},
        group="plugins",
        help="Settings of plugins by name, as in the tables [plugin.NAME] of vllm.toml: {NAME: {KEY: VALUE}}.",
    )

    @property
    def max_rows(self) -> int:
        """``max_num_seqs``, which `engine.find` has filled in with the platform's choice if it was not given."""
        if self.max_num_seqs is None:
            raise ValueError("max_num_seqs has no value before the platform is known")
        return self.max_num_seqs
