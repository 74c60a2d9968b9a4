"""The second half of resolving: the model bound without memory, all that it asked for, and what it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from typing import Any

import attrs
import torch

from vllm_core.distributed.layout import Layout
from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.engine.choices import Asking, choose_proposer, choose_quantization, choose_step_tokens
from vllm_core.engine.choose_grammars import GrammarChoices, choose_grammars
from vllm_core.engine.choose_sampling import choose_processors, choose_sampler
from vllm_core.engine.find import Found
from vllm_core.engine.memory import Beside, MemoryPlan, Need, memory_budget, plan_memory
from vllm_core.engine.model_config import explain_config
from vllm_core.engine.model_limits import choose_dtype, choose_max_model_len
from vllm_core.engine.second import find_second
from vllm_core.engine.stage_sizes import layers_of_stages, stage_sizes
from vllm_core.interfaces.cache import BYTES, CachePlan
from vllm_core.interfaces.queries import ModelQuery, OpQuery
from vllm_core.runner.activations import activation_bytes, graph_bytes
from vllm_core.runner.build import ModelBuild, lookahead_of
from vllm_core.runner.chosen import Chosen, ProposerChoice
from vllm_core.runner.graphs import MIXED
from vllm_core.runner.second import SecondModel, SecondModels

__all__ = ["Fitted", "fit"]


@attrs.frozen(kw_only=True)
class Fitted:
    """A model that the device holds, as far as can be known without loading it."""

    model_build: ModelBuild
    caches: CachePlan  # of all layers
    memory: MemoryPlan
    max_step_tokens: int
    proposer: ProposerChoice | None
    second: Mapping[str, SecondModel]  # models that the proposer asked for
    sampler: Chosen
    asked: Sequence[OpQuery]  # kernels that layers will ask for
    processors: Sequence[Chosen]
    grammars: GrammarChoices


def fit(found: Found, num_pages: int | None = None) -> Fitted:
    """Choose the model, bind a rank's share of it on the meta device, and plan its memory. No weight is read.

    num_pages   if the memory was planned elsewhere
    """
    settings, selector, platform, device = found.settings, found.selector, found.platform, found.device
    layout = Layout(settings.tensor_parallel_size, settings.pipeline_parallel_size)
    served = selector.choose_model(ModelQuery(architectures=found.architectures, config=found.config, device=device))
    served.load()
    dtype = choose_dtype(settings.dtype, found.config, platform.dtypes(), device)
    quantization = choose_quantization(selector, settings, found.config, dtype, device)
    proposer = choose_proposer(selector, settings, served.offer.name, device)
    num_drafts = proposer.num_drafts if proposer else 0
    max_model_len = choose_max_model_len(settings.max_model_len, found.config)
    model_build = ModelBuild(
        target=served.offer.target,
        config=found.config,
        dtype=dtype,
        device=device,
        max_model_len=max_model_len,
        max_step_tokens=0,
        block_size=settings.block_size,
        quantization=quantization,
        num_drafts=num_drafts,
        batch_invariant=settings.batch_invariant,
        layout=layout,
        stage_layers=layers_of_stages(settings),
    )
    named = {"attention_backend": (settings.attention_backend, "--attention-backend")}
    asking = Asking(selector, {hook: n for hook, n in named.items() if n[0] is not None})  # type: ignore[misc]
    second = SecondModels(find=partial(find_second, found, dtype, max_model_len))
    with explain_config(served.offer.name, f"{served.provided.distribution} {served.provided.version}"):
        model, plan = model_build.construct(asking, torch.device("meta"), second)
    made = proposer.make() if proposer else None
    if made is not None:
        made.bind(model, plan)
    caches = plan.finish(plan_caches, settings.block_size)
    sampler = choose_sampler(selector, model.vocab_size, device, settings.batch_invariant, settings.sampler)
    processors = choose_processors(selector, settings, model.vocab_size, device)
    parameters = sum(p.numel() for p in model.parameters())
    max_step_tokens = choose_step_tokens(settings, platform.token_budget(parameters), num_drafts)
    half = next((name for name in platform.dtypes() if BYTES[name] == 2), "")
    need = Need(
        max_model_len=max_model_len,
        max_rows=settings.max_rows,
        max_step_tokens=max_step_tokens,
        num_drafts=num_drafts,
        stages=layout.pp,
        lookahead=lookahead_of(made),
        narrower=half if dtype == "float32" and quantization is None else "",
    )
    models = (model, *second.models.values())
    beside = _beside(found, models, BYTES[dtype], max_step_tokens, num_drafts)
    sharing = ceil(layout.world / max(device.count, 1))  # ranks that have one device's memory between them
    shared = attrs.evolve(device, memory=device.memory // sharing)
    memories = []
    for stage in stage_sizes(model_build, selector, caches, model, second.models):
        own = attrs.evolve(shared, name=f"{stage.name} ({shared.name or shared.type})") if stage.name else shared
        budget = memory_budget(settings, platform, own, stage.weights, beside, sharing)
        given = settings.max_model_len is not None
        memories.append(plan_memory(stage.caches, budget, need, given=given, num_pages=num_pages))
    return Fitted(
        model_build=attrs.evolve(model_build, max_step_tokens=max_step_tokens),
        caches=caches,
        memory=min(memories, key=lambda memory: memory.num_pages),  # all stages have the same pages
        max_step_tokens=max_step_tokens,
        proposer=proposer,
        second=second.known,
        sampler=sampler,
        asked=tuple(plan.asked),
        processors=processors,
        grammars=choose_grammars(selector, settings, model.vocab_size),
    )


def _beside(found: Found, models: Sequence[Any], itemsize: int, tokens: int, num_drafts: int) -> Beside:
    """Bytes that a process needs beside weights and cache; models run one after the other."""
    rows, device = found.settings.max_rows, found.device

    def most(tokens: int) -> int:
        return max(activation_bytes(m, m.vocab_size, itemsize, tokens, rows, num_drafts) for m in models)

    graphs = 0
    if device.type != "cpu" and not found.settings.enforce_eager:  # they keep their own activations
        graphs = graph_bytes(rows) + most(min(tokens, max(*MIXED, rows * (1 + num_drafts))))
    process = getattr(found.platform, "process_memory", lambda: 0)()
    return Beside(activations=most(tokens), graphs=graphs, process=process, max_step_tokens=tokens)
