"""From settings to choices: ask the plugins, and write down what they say. `engine.build` starts from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from vllm_core.config.engine import EngineSettings
from vllm_core.config.plugins import plugin_settings
from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.engine.choices import (
    Asking,
    check_prefer,
    choose_proposer,
    choose_quantization,
    choose_step_tokens,
    refuse_not_yet,
)
from vllm_core.engine.choose_sampling import choose_processors, choose_sampler
from vllm_core.engine.choose_text import refuse_text_settings
from vllm_core.engine.default_sampling import generation_configs
from vllm_core.engine.memory import MemoryPlan, Need, memory_budget, plan_memory
from vllm_core.engine.model_config import explain_config, model_config, plain_overrides
from vllm_core.engine.model_limits import choose_dtype, choose_max_model_len
from vllm_core.engine.progress import loading_line
from vllm_core.engine.timing import timed
from vllm_core.engine.tokenizer import eos_ids
from vllm_core.interfaces.cache import BYTES
from vllm_core.interfaces.queries import (
    ExecutorQuery,
    ModelQuery,
    PlatformQuery,
    SchedulerQuery,
)
from vllm_core.interfaces.weights import Checkpoint
from vllm_core.plugins import Lock, LockedChooser, Selector, load_catalog, read_policy
from vllm_core.runner.build import Build, ModelBuild, parameter_bytes
from vllm_core.weights.checkpoint import open_checkpoint

__all__ = ["Resolved", "resolve"]


@attrs.frozen(kw_only=True)
class Resolved:
    """All choices made and recorded; no weight read, no page made."""

    settings: EngineSettings  # hf_overrides as fields, where a function was given
    selector: Selector
    lock: Lock
    checkpoint: Checkpoint
    build: Build
    executor_target: Any
    memory: MemoryPlan
    max_step_tokens: int
    policy_target: Any
    eos_token_ids: tuple[int, ...]
    generation_config: Mapping[str, Any]
    warnings: Sequence[str]  # about plugins: quarantined ones, names in the policy that nobody has
    timings: dict[str, float]


def resolve(settings: EngineSettings) -> Resolved:
    """Make every choice of an engine. Raises the error that names what is missing and what would work."""
    timings: dict[str, float] = {}
    refuse_not_yet(settings)
    refuse_text_settings(settings)
    with timed(timings, "plugins"):
        rules = read_policy(settings.plugins)
        catalog = load_catalog(rules)
        warnings = [*catalog.notices, *check_prefer({**rules.prefer, **settings.prefer}, catalog)]
        catalog.settings = plugin_settings(catalog, settings.plugin)
        selector = Selector(catalog, prefer=settings.prefer)
        wanted = settings.device
        platform = selector.choose(
            "platform", PlatformQuery(name=wanted), None if wanted == "auto" else wanted, asked_by="--device"
        ).load()()
        device = selector.device = platform.facts()
    with timed(timings, "checkpoint"):
        checkpoint = open_checkpoint(
            settings.model,
            revision=settings.revision,
            download_dir=settings.download_dir,
            load_format=settings.load_format,
            catalog=catalog,
            choose=selector.choose,
        )
        settings = attrs.evolve(settings, hf_overrides=plain_overrides(checkpoint.config, settings.hf_overrides))
        config = model_config(checkpoint.config, settings.hf_overrides)
        generation_config, ending = generation_configs(settings, checkpoint.generation_config)
        eos = eos_ids(config, ending)
    with timed(timings, "model"):
        architectures = tuple(config.get("architectures") or ())
        served = selector.choose_model(ModelQuery(architectures=architectures, config=config, device=device))
        served.load()
        dtype = choose_dtype(settings.dtype, config, platform.dtypes(), device)
        quantization = choose_quantization(selector, settings, config, dtype, device)
        proposer = choose_proposer(selector, settings, served.offer.name, device)
        num_drafts = proposer.num_drafts if proposer else 0
        max_model_len = choose_max_model_len(settings.max_model_len, config)
        model_build = ModelBuild(
            target=served.offer.target,
            config=config,
            dtype=dtype,
            device=device,
            max_model_len=max_model_len,
            max_step_tokens=0,
            block_size=settings.block_size,
            quantization=quantization,
            num_drafts=num_drafts,
        )
        named = {"attention_backend": (settings.attention_backend, "--attention-backend")}
        asking = Asking(selector, {hook: n for hook, n in named.items() if n[0] is not None})  # type: ignore[misc]
        with explain_config(served.offer.name, f"{served.provided.distribution} {served.provided.version}"):
            model, plan = model_build.construct(asking, torch.device("meta"))
        if proposer is not None:
            proposer.make().bind(model, plan)
        caches = plan.finish(plan_caches, settings.block_size)
        sampler = choose_sampler(selector, model.vocab_size, device)
        processors = choose_processors(selector, settings, model.vocab_size, device)
        weight_bytes = parameter_bytes(model)
        parameters = sum(p.numel() for p in model.parameters())
        max_step_tokens = choose_step_tokens(settings, platform.token_budget(parameters), num_drafts)
        narrow = next((name for name in platform.dtypes() if BYTES[name] == 2), "")
        need = Need(
            max_model_len=max_model_len,
            max_rows=settings.max_num_seqs,
            max_step_tokens=max_step_tokens,
            num_drafts=num_drafts,
            narrower=narrow if dtype == "float32" and quantization is None else "",
        )
        budget = memory_budget(settings, platform, device, weight_bytes)
        memory = plan_memory(caches, budget, need, given=settings.max_model_len is not None)
        executor = selector.choose(
            "executor",
            ExecutorQuery(name=settings.distributed_executor_backend or "", world_size=1, nodes=1, device=device),
            settings.distributed_executor_backend,
            asked_by="--distributed-executor-backend",
        )
        policy = selector.choose(
            "scheduler_policy",
            SchedulerQuery(policy=settings.scheduling_policy),
            # The default is nobody's wish: explain should not say that it was asked for.
            None if settings.scheduling_policy == EngineSettings().scheduling_policy else settings.scheduling_policy,
            asked_by="--scheduling-policy",
        )
        lock = Lock.from_decisions(selector.decisions, attrs.asdict(settings))
    build = Build(
        model=attrs.evolve(model_build, max_step_tokens=max_step_tokens),
        checkpoint=checkpoint,
        dummy_seed=settings.seed if settings.load_format == "dummy" else None,
        choose=LockedChooser(lock),
        torch_device=platform.torch_device(0),
        num_pages=memory.num_pages,
        max_rows=settings.max_num_seqs,
        plan_caches=plan_caches,
        proposer=proposer,
        sampler=sampler,
        processors=processors,
        progress=loading_line(),
    )
    return Resolved(
        settings=settings,
        warnings=warnings,
        eos_token_ids=eos,
        generation_config=generation_config,
        selector=selector,
        lock=lock,
        checkpoint=checkpoint,
        build=build,
        executor_target=executor.load(),
        memory=memory,
        max_step_tokens=max_step_tokens,
        policy_target=policy.load(),
        timings=timings,
    )
