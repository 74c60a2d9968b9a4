"""A resolved engine: everything decided, nothing loaded. Any process that has it can build the runner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch

from vllm_core.distributed.groups import dry_groups
from vllm_core.distributed.layout import Layout
from vllm_core.distributed.offered import CollectiveChoice
from vllm_core.engine.cache.stages import plan_of_stage
from vllm_core.engine.recipe import Recipe
from vllm_core.interfaces.cache import CachePlan
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.group import ProcessGroup
from vllm_core.interfaces.proposer import Proposer
from vllm_core.interfaces.queries import OpQuery
from vllm_core.interfaces.weights import Checkpoint, Progress
from vllm_core.plugin import load_target
from vllm_core.plugins.lock import LockedChooser
from vllm_core.runner.ahead import Ahead
from vllm_core.runner.chosen import Chosen, ProposerChoice
from vllm_core.runner.cuda_graph import CudaRecorder
from vllm_core.runner.device_memory import check_free
from vllm_core.runner.plan import EnginePlan
from vllm_core.runner.runner import Runner
from vllm_core.runner.second import SecondModel, SecondModels
from vllm_core.runner.stage import Stage
from vllm_core.runner.step_ops import StepOps
from vllm_core.weights import Table, fill_dummy, load_weights

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class ModelBuild:
    """How to construct and bind the model; used dry in the parent and for real where steps run."""

    target: str  # "module:Class" with the surface of interfaces.model.Model
    config: Mapping[str, Any]  # config.json, overrides applied
    dtype: str
    device: Device
    max_model_len: int  # tokens of a sequence
    max_step_tokens: int
    block_size: int | None
    quantization: Any = None  # interfaces.quantization.Quantization
    num_drafts: int = 0
    batch_invariant: bool = False
    layout: Layout = Layout()
    stage_layers: Sequence[int] = ()  # of each pipeline stage; (): shares of equal cost

    def construct(
        self,
        choose: Any,
        device: torch.device,
        second: SecondModels | None = None,
        ahead: Ahead | None = None,
        groups: Mapping[str, ProcessGroup] | None = None,
    ) -> tuple[Any, EnginePlan]:
        """The model, bound on ``device`` ("meta": dry). Caches are declared, pages not yet there.

        groups   of this rank; None: dry ones of the first rank, but with the layers of all stages
        """
        model = load_target(self.target).from_config(dict(self.config))
        plan = EnginePlan(
            choose,
            getattr(torch, self.dtype),
            device,
            self.device,
            groups=dry_groups(Layout(self.layout.tp)) if groups is None else groups,
            max_tokens=self.max_step_tokens,
            max_position=self.max_model_len + self.num_drafts + 1,
            quantization=self.quantization,
            weight_table=Table(model.weights),
            max_model_len=self.max_model_len,
            second=second,
            batch_invariant=self.batch_invariant,
            stage_layers=self.stage_layers,
            num_drafts=self.num_drafts,
        )
        plan.ahead = ahead or plan.ahead
        model.bind(plan)
        plan.step_ops = StepOps.ask(plan)
        plan.check_invariance(model, attrs.astuple(plan.step_ops, recurse=False))
        if callable(bound := getattr(self.quantization, "bound", None)):
            bound()
        return model, plan


@attrs.frozen(kw_only=True)
class Build:
    """`runner.inprocess.Build`: what an executor gets."""

    model: ModelBuild
    checkpoint: Checkpoint
    dummy_seed: int | None  # random weights instead of the checkpoint's
    choose: LockedChooser
    torch_device: torch.device
    num_pages: int
    max_rows: int
    plan_caches: Callable[..., Any]
    proposer: ProposerChoice | None = None
    second: Mapping[str, SecondModel] = attrs.field(factory=dict)  # models that the proposer asked for
    sampler: Chosen | None = None
    processors: Sequence[Chosen] = ()
    grammars: Any = None  # engine.grammars.Grammars: what restricts rows to grammars; None: nothing does
    progress: Progress | None = None
    beside: Mapping[str, int] = attrs.field(factory=dict)  # bytes planned beside weights and cache, by purpose
    asked: Sequence[OpQuery] = ()  # ops and layers whose kernels can be made before layers ask for them
    graphs: bool = False  # record steps, if the device and all that was chosen allow it
    caches: CachePlan  # of all layers
    collectives: Mapping[str, Sequence[CollectiveChoice]] = attrs.field(factory=dict)  # of "tp", by operation
    recipe: Recipe

    def make_runner(
        self, groups: Mapping[str, ProcessGroup] | None = None, meet: Callable[[], None] = lambda: None
    ) -> tuple[Runner, Capacity]:
        """Bind on the device, read the weights, make pages and rows.

        groups   that this rank is in; None: it is the only one
        meet     returns when all ranks are about to run their first step together
        ``LockMismatch`` if other code is installed here than when the lock was made.
        """
        timings: dict[str, float] = {}
        clock = _Clock(timings)
        self.choose.verify()
        clock.lap("lock")
        ahead = Ahead(self.torch_device)
        try:
            return self._make_runner(ahead, clock, timings, groups or {}, meet)
        finally:
            ahead.close()

    def _make_runner(
        self,
        ahead: Ahead,
        clock: _Clock,
        timings: dict[str, float],
        groups: Mapping[str, ProcessGroup],
        meet: Callable[[], None],
    ) -> tuple[Runner, Capacity]:
        stage = Stage.of(groups, self.torch_device)
        last = stage is None or stage.last  # it has what comes behind the model
        sampler = self.sampler if last else None
        if sampler is not None:
            ahead.begin("sampler", sampler.make)
        ahead.begin_ops(self.asked, self.choose)
        proposer = self.proposer.make() if self.proposer and last else None
        second = SecondModels(self.second)
        model, plan = self.model.construct(self.choose, self.torch_device, second, ahead, groups)
        if proposer is not None:
            proposer.bind(model, plan)
        weight_bytes = parameter_bytes(model, *second.models.values())  # kernels that pack weights give them back later
        fill = partial(self._fill, model, second)
        ahead.begin("weights", fill)  # while attention backends are compiled
        caches = plan.finish(self.plan_caches if stage is None else plan_of_stage(self.caches), self.model.block_size)
        clock.lap("bind")
        ahead.take("weights", fill)
        clock.lap("weights")
        memory = {"weights": weight_bytes, "kv_cache": self.num_pages * caches.bytes_per_page, **self.beside}
        check_free(self.torch_device, memory)
        runner = (Runner if stage is None else stage.runner())(
            model,
            plan,
            caches,
            self.num_pages,
            self.max_rows,
            self.model.max_model_len,
            proposer=proposer,
            num_drafts=self.model.num_drafts,
            sampler=ahead.take("sampler", sampler.make) if sampler else None,
            processors={processor.name: processor.make() for processor in self.processors} if last else {},
            grammars=self.grammars if last else None,
            ops=plan.step_ops,
            record=self._recorder(plan),
            any_sampling=sampler is not None and "graph" in sampler.capabilities,
            max_tokens=self.model.max_step_tokens,
            stage=stage,
        )
        clock.lap("pages and rows")
        meet()
        if runner.graphs is not None:
            runner.graphs.warm_up()
            clock.lap("graphs")
        capacity = Capacity(
            caches=self.caches if stage is not None else caches,
            num_pages=self.num_pages,
            max_rows=self.max_rows,
            num_drafts=self.model.num_drafts,
            stages=self.model.layout.pp,
            lookahead=lookahead_of(proposer),
            vocab_size=model.vocab_size,
            memory=memory,
            timings=timings,
        )
        return runner, capacity

    def _fill(self, model: Any, second: SecondModels) -> None:
        if self.dummy_seed is not None:
            fill_dummy(model, self.dummy_seed)
        else:
            load_weights(model, self.checkpoint.source, progress=self.progress)
        second.load(self.dummy_seed, self.progress)

    def _recorder(self, plan: EnginePlan) -> CudaRecorder | None:
        if not self.graphs or self.torch_device.type != "cuda":
            return None
        if obstacles := plan.no_graph():
            log.warning(
                "steps run without CUDA graphs, which is slower: %s cannot stand in one; --enforce-eager says that this"
                " is meant",
                ", ".join(obstacles),
            )
            return None
        return CudaRecorder(self.torch_device)


def parameter_bytes(*models: torch.nn.Module) -> int:
    """Bytes of all parameters, shared ones once."""
    parameters = {id(p): p for model in models for p in model.parameters()}
    return sum(p.numel() * p.element_size() for p in parameters.values())


def lookahead_of(proposer: Proposer | None) -> int:
    """Tokens behind the last known one whose cache entries it writes."""
    return getattr(proposer, "lookahead", 0)


class _Clock:
    def __init__(self, into: dict[str, float]) -> None:
        self._into, self._last = into, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._into[name], self._last = now - self._last, now
