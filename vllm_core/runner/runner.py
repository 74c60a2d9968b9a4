"""One step on one device: plan in, sampled ids out, nothing read back in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vllm_core.engine.cache.table import table_widths
from vllm_core.interfaces.attention import AttentionBackend
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.cache import CachePlan, CrossAttentionCache, RecurrentCache
from vllm_core.interfaces.logits_processor import LogitsProcessor
from vllm_core.interfaces.model import Model
from vllm_core.interfaces.proposer import Proposer
from vllm_core.interfaces.sampler import Sampler
from vllm_core.interfaces.steps import StepPlan
from vllm_core.ops.sampler import ReferenceSampler
from vllm_core.runner.changes import Changes
from vllm_core.runner.follow import RunStep, stack_of
from vllm_core.runner.grammars import GrammarSource
from vllm_core.runner.graphs import StepGraphs, ending_of
from vllm_core.runner.inputs import Inputs, check, prepare
from vllm_core.runner.output import StepOutput
from vllm_core.runner.pages import copy_pages, make_pages
from vllm_core.runner.reports import Reports
from vllm_core.runner.rows import Rows
from vllm_core.runner.stage import Stage
from vllm_core.runner.static_step import FORWARD, Machinery, StaticStep
from vllm_core.runner.step_ops import StepOps
from vllm_core.runner.verify import advance, verify, write_drafts


class BoundPlan(Protocol):
    """What a runner needs of the plan that its model was bound to (``runner.plan.EnginePlan``)."""

    torch_device: torch.device
    second: Any  # ``second.SecondModels``; read only if a proposer follows steps

    def groups_of(self, model: str) -> frozenset[int]:
        """Cache groups of a second model, or ("") of the one that is served; asked only if a proposer follows."""

    def bind_caches(self, caches: CachePlan, tensors: Sequence[Tensor]) -> Sequence[AttentionBackend | None]:
        """Give every layer its pages; the backend of each cache group (None: no attention reads it)."""


class Runner:
    """Rows, pages and a bound, filled model; ``execute`` runs steps in the order of their plans.

    max_rows        requests that hold a row at the same time
    max_model_len   tokens of a request, prompt and output together
    num_drafts      K, drafts a row and step that ``proposer`` makes
    sampler         None: the core's
    processors      logits processors by name, in the order in which they apply
    grammars        where the grammars of rows come from; None: no row has one
    ops             kernels of a step around the model; None: the core's
    record          makes a step of fixed size that can be run again (``cuda_graph.CudaRecorder``); None: every step
                    runs op by op
    any_sampling    the sampler needs no host facts, so that one recorded step draws by any parameters
    max_tokens      most tokens of a step
    stage           of a pipeline, for the runners in ``staged``; None: the model is all here
    """

    drafts_elsewhere = False  # another process verifies drafts, and tells what became of them

    def __init__(
        self,
        model: Model,
        plan: BoundPlan,
        caches: CachePlan,
        num_pages: int,
        max_rows: int,
        max_model_len: int,
        proposer: Proposer | None = None,
        num_drafts: int = 0,
        sampler: Sampler | None = None,
        processors: Mapping[str, LogitsProcessor] | None = None,
        grammars: GrammarSource | None = None,
        ops: StepOps | None = None,
        record: Callable[[StaticStep], Callable[[], Any]] | None = None,
        any_sampling: bool = False,
        max_tokens: int = 0,
        stage: Stage | None = None,
    ) -> None:
        if (proposer is None) != (num_drafts == 0) and not (self.drafts_elsewhere and proposer is None):
            raise ValueError(f"num_drafts is {num_drafts} with {'no' if proposer is None else 'a'} proposer")
        self.model, self.caches, self.proposer = model, caches, proposer
        self.stage = stage
        self.embed: Callable[[Tensor, Batch], Tensor] = model.embed if stage is None else stage.entry(model.embed)
        self.num_pages, self.num_drafts, self.device = num_pages, num_drafts, plan.torch_device
        self.pages = make_pages(caches, num_pages, self.device)
        self.backends = plan.bind_caches(caches, self.pages)
        self.rows = make_rows(caches, max_rows, max_model_len, num_drafts, self.device)
        self.sampler = sampler or ReferenceSampler()
        self._ops = ops = ops or StepOps()
        self.changes = Changes(self.rows, model.vocab_size, processors or {}, ops, grammars)
        self.reports = Reports(self.rows, model.vocab_size, ops.token_logprobs)
        self._follow = getattr(proposer, "follow", None)
        self._backends_of: dict[str, list[AttentionBackend | None]] = {"": list(self.backends)}
        if self._follow is not None:  # each model begins steps in the groups that it has caches in
            self._backends_of = {name: self._of(plan.groups_of(name)) for name in ("", *plan.second.models)}
        if proposer is not None and proposer.taps:
            stack_of(model).tap(proposer.taps)
        self._any_sampling = any_sampling
        self.graphs: StepGraphs | None = None
        if record is not None:
            own = (self._backends_of[""], self.sampler, any_sampling, ops, num_drafts, stage)
            self.graphs = StepGraphs(Machinery(model, self.rows, *own), record, max_rows, max_tokens)

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepOutput:
        """Run a step; what it found stays on the device."""
        self._admit(plan)
        result = torch.full((len(plan.rows), 1 + self.num_drafts), -1, dtype=torch.int32, device=self.device)
        if not plan.rows:
            return StepOutput(result)
        check(plan, self.rows)
        ending = self._ending(plan)
        if self.graphs is not None and ending != FORWARD:
            step = self.graphs.run(plan, ending)
            if step is not None:
                return StepOutput(step.result[: len(plan.rows)])
        inputs = prepare(plan, self.rows, self._ops)
        hidden = self._recorded_forward(plan, inputs) if ending == FORWARD else None
        if hidden is None:
            hidden = self._forward(inputs)
        prompts = self.reports.prompts(plan, self.model, hidden)
        if not len(inputs.sampling_rows_host):
            advance(self.rows, inputs, None, None)
            if self._follow is not None:
                self._follow(self._run_step(plan, inputs))
            return StepOutput(result, prompt_logprobs=prompts)
        raw = self.model.logits(hidden.index_select(0, inputs.logits_at))
        emitted = verify(self.changes.apply(raw, inputs), inputs, self.rows, self.sampler)
        sampled = self.reports.sampled(raw, inputs, emitted)
        advance(self.rows, inputs, emitted, result)
        if self._follow is not None:
            drafts = self._follow(self._run_step(plan, inputs))
            if drafts is None:
                raise ValueError(f"{type(self.proposer).__name__} gave no drafts for rows that sampled")
            write_drafts(self.rows, inputs.sampling_rows, drafts, raw.shape[-1])
        elif self.proposer is not None:
            last = inputs.logits_at.index_select(0, inputs.logits_first + emitted.accepted)
            self._propose(self.proposer, inputs, hidden, last, raw.shape[-1])
        self.changes.after(inputs, emitted)
        return StepOutput(result, sampled, prompts, self.changes.failed)

    @torch.inference_mode()
    def forward_logits(self, plan: StepPlan) -> Tensor:
        """Logits [T, V] at every position of a step without drafts, for comparisons with a reference.

        The rows move on by the step's tokens and nothing is sampled, so all tokens must be known
        from ``RowInit``. Rows, pages, backends and model are those of ``execute``.
        """
        if any(plan.num_drafts):
            raise ValueError(f"step {plan.step}: forward_logits verifies no drafts, and the plan has {plan.num_drafts}")
        self._admit(plan)
        check(plan, self.rows)
        inputs = prepare(plan, self.rows, self._ops)
        hidden = self._forward(inputs)
        advance(self.rows, inputs, None, None)
        return self.model.logits(hidden)

    def _admit(self, plan: StepPlan) -> None:
        self.rows.apply(plan)
        if plan.inits:
            self._take(plan)
        if plan.copies:
            copy_pages(self.pages, self.caches, plan.copies, self._ops.copy_pages)

    def _take(self, plan: StepPlan) -> None:
        self.changes.take(plan.inits)
        self.reports.take(plan.inits)

    def _forward(self, inputs: Inputs) -> Tensor:
        """Hidden states [T, hidden] of the step's tokens."""
        batch = inputs.batch
        batch.metadata = [
            None if backend is None else backend.begin_step(step)
            for backend, step in zip(self._backends_of[""], batch.attention, strict=True)
        ]
        return self.model.forward(self.embed(inputs.ids, batch), batch)

    def _recorded_forward(self, plan: StepPlan, inputs: Inputs) -> Tensor | None:
        """As `_forward`, by a recorded step, if there is one of this size."""
        step = self.graphs.run(plan, FORWARD) if self.graphs is not None else None
        if step is None or step.hidden is None:
            return None
        tokens = inputs.batch.num_tokens
        inputs.batch.taps = {i: tap[:tokens] for i, tap in step.taps.items()}
        return step.hidden[:tokens]

    def _ending(self, plan: StepPlan) -> str:
        """What follows the model in this step: FORWARD if the host has a say in it."""
        if self.proposer is not None:
            return FORWARD
        rows = np.array(plan.rows, dtype=np.int64)
        if self.changes.asked(rows) or self.reports.asked(rows):
            return FORWARD
        r = self.rows
        truncated = r.host_top_p[rows] | r.host_min_p[rows]
        return ending_of(r.host_greedy[rows], r.host_top_k[rows], truncated, self._any_sampling)

    def _of(self, groups: frozenset[int]) -> list[AttentionBackend | None]:
        return [backend if group in groups else None for group, backend in enumerate(self.backends)]

    def _run_step(self, plan: StepPlan, inputs: Inputs) -> RunStep:
        return RunStep(plan, inputs, self.rows, self.sampler, self._backends_of.__getitem__)

    def _propose(self, proposer: Proposer, inputs: Inputs, hidden: Tensor, last: Tensor, vocab: int) -> None:
        """``last``: int64 [N], each sampling row's last accepted token among the step's T."""
        drafts = proposer.propose(
            inputs.sampling_rows,
            self.rows.view,
            hidden.index_select(0, last) if proposer.needs_hidden else None,
            {i: inputs.batch.taps[i].index_select(0, last) for i in proposer.taps},
        )
        write_drafts(self.rows, inputs.sampling_rows, drafts, vocab)


def make_rows(
    caches: CachePlan,
    max_rows: int,
    max_model_len: int,
    num_drafts: int,
    device: torch.device,
    max_encoder_tokens: int = 0,
) -> Rows:
    """Rows with a block table for every cache group, whatever its kind."""
    by_position = [not isinstance(g.spec, RecurrentCache | CrossAttentionCache) for g in caches.groups]
    return Rows(
        max_rows,
        max_model_len,
        num_drafts,
        [group.block_size for group in caches.groups],
        device,
        widths=table_widths(
            caches, max_model_len=max_model_len, num_drafts=num_drafts, max_encoder_tokens=max_encoder_tokens
        ),
        by_position=by_position,
    )
