"""A step of fixed size whose inputs lie in fixed tensors, so that it can be recorded once and run again.

What is too many is padding: a sequence of nobody's row (``Rows.nobody``), which has no pages and never moves on.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionBackend, AttentionStep
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.model import Model
from vllm_core.interfaces.sampler import Sampler, SamplingTensors
from vllm_core.interfaces.steps import StepPlan
from vllm_core.runner.noise import SAMPLE
from vllm_core.runner.rows import Rows
from vllm_core.runner.stage import Stage
from vllm_core.runner.step_ops import StepOps

FORWARD, GREEDY, DRAW = "forward", "greedy", "draw"
"""What follows the model: nothing, the likeliest token of each row, or a draw by each row's parameters."""


@attrs.frozen
class Size:
    """S sequences of T tokens in all, none with more than ``longest`` tokens; ``ending`` as above."""

    rows: int
    tokens: int
    longest: int
    ending: str

    @property
    def one_each(self) -> bool:
        """Every sequence has one token: its own, or padding."""
        return self.longest == 1 and self.rows == self.tokens


@attrs.frozen
class Machinery:
    """What a step is made with."""

    model: Model
    rows: Rows
    backends: Sequence[AttentionBackend | None]
    sampler: Sampler
    any_sampling: bool  # the sampler needs no host facts; else top-k, top-p and min-p are never asked of it here
    ops: StepOps
    num_drafts: int
    stage: Stage | None = None  # of a pipeline; None: all of it is here

    @property
    def samples(self) -> bool:
        return self.stage is None or self.stage.last


class StaticStep:
    """``fill`` the host's numbers in, copy them to ``inputs``, ``run``: results lie in ``result`` or ``hidden``.

    inputs   int64, the host's numbers on the device: rows [S], starts [S + 1], advance [S], emits [S]
    result   int32 [S, 1 + K], as `StepOutput.token_ids`; padding is -1
    hidden   [T, H] after FORWARD
    x        [T, H], filled before each run with what the pipeline stage before gave; None: embeddings are made here
    """

    def __init__(self, size: Size, machinery: Machinery) -> None:
        self.size, self.with_ = size, machinery
        device = machinery.rows.device
        self.count = 4 * size.rows + 1
        self.inputs = torch.zeros(self.count, dtype=torch.int64, device=device)
        s = size.rows
        self.row, self.starts, self.advance, self.emits = self.inputs.split([s, s + 1, s, s])
        self.result = torch.full((s, 1 + machinery.num_drafts), -1, dtype=torch.int32, device=device)
        self.sampling = torch.arange(s, device=device)
        self.nothing_accepted = torch.zeros_like(self.sampling)
        self.greedy = SamplingTensors(
            temperature=torch.zeros(s, device=device),
            top_k=torch.zeros_like(self.sampling),
            top_p=torch.ones(s, device=device),
            min_p=torch.zeros(s, device=device),
            noise=torch.zeros(s, dtype=torch.float64, device=device),
            any_greedy=True,
            any_random=False,
            largest_top_k=0,
            any_top_p=False,
            any_min_p=False,
        )
        self.hidden: Tensor | None = None
        self.x = None if machinery.stage is None or machinery.stage.first else self._received()
        self.taps: dict[int, Tensor] = {}

    @torch.inference_mode()
    def _received(self) -> Tensor:
        """Zeros of the shape and dtype of hidden states, which ``embed`` tells."""
        ids = torch.zeros(self.size.tokens, dtype=torch.int64, device=self.inputs.device)
        batch = Batch(num_tokens=len(ids), positions=ids, attention=[], metadata=[])
        return torch.zeros_like(self.with_.model.embed(ids, batch))

    def fill(self, host: np.ndarray, plan: StepPlan | None) -> None:
        """``host``: int64 [count]; without a plan all of it is padding."""
        s, nobody = self.size.rows, self.with_.rows.nobody
        n = 0 if plan is None else len(plan.rows)
        row, starts, advance, emits = np.split(host, (s, 2 * s + 1, 3 * s + 1))
        row[n:], advance[n:], emits[n:] = nobody, 0, 0
        if plan is not None:
            row[:n], advance[:n], emits[:n] = plan.rows, plan.num_tokens, plan.samples
        if self.size.one_each:
            starts[:] = np.arange(s + 1)
            return
        starts[0] = 0
        np.cumsum(advance[:n], out=starts[1 : n + 1])
        # Padding sequences take what is left, none more than the longest may have.
        starts[n + 1 :] = starts[n] + self.size.longest * np.arange(1, s - n + 1)
        np.minimum(starts, self.size.tokens, out=starts)

    @torch.inference_mode()
    def run(self) -> None:
        """All of it on the device, from ``inputs`` and the rows; nothing is read back."""
        w, size = self.with_, self.size
        rows, ops = w.rows, w.ops
        ids, positions, sequence, kv_lens = ops.step_inputs(
            rows.token_ids, rows.num_computed, self.row, self.starts, size.tokens
        )
        attention = self._attention(positions, sequence, kv_lens)
        batch = Batch(
            num_tokens=size.tokens,
            positions=positions,
            attention=attention,
            metadata=[
                None if backend is None else backend.begin_step(step)
                for backend, step in zip(w.backends, attention, strict=True)
            ],
        )
        x = w.model.embed(ids, batch) if self.x is None else self.x
        hidden = w.model.forward(x, batch)
        if size.ending == FORWARD:
            self.hidden, self.taps = hidden, batch.taps
            return
        if not size.one_each:
            hidden = hidden.index_select(0, (self.starts[1:] - 1).clamp_min_(0))
        logits = w.model.logits(hidden)
        tokens = w.sampler(logits, self._sampling(kv_lens)).long()
        ops.commit_tokens(
            rows.token_ids,
            rows.num_tokens,
            rows.num_computed,
            self.row,
            self.advance,
            self.sampling,
            tokens[:, None],
            self.nothing_accepted,
            self.result,
            self.emits,
        )

    def _attention(self, positions: Tensor, sequence: Tensor, kv_lens: Tensor) -> list[AttentionStep]:
        rows, starts = self.with_.rows, self.starts.int()
        steps = []
        for group, block_size in enumerate(rows.block_sizes):
            table, slots = self.with_.ops.page_slots(
                rows.block_tables[group], self.row, sequence, positions, block_size, rows.blocks[group]
            )
            steps.append(
                AttentionStep(
                    num_tokens=self.size.tokens,
                    query_lens=(),
                    kv_bounds=(),
                    query_starts=starts,
                    kv_lens=kv_lens,
                    block_table=table,
                    slots=slots,
                    longest_query=self.size.longest,
                    longest_kv=rows.max_kv,
                    static=True,
                )
            )
        return steps

    def _sampling(self, kv_lens: Tensor) -> SamplingTensors:
        """A token follows all that its row has cached by now, so ``kv_lens`` says where it stands."""
        if self.size.ending == GREEDY:
            return self.greedy
        rows, anything = self.with_.rows, self.with_.any_sampling
        temperature, top_k, top_p, min_p, noise = self.with_.ops.sampling_rows(
            rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seed, self.row, kv_lens.long(), SAMPLE
        )
        return SamplingTensors(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            noise=noise,
            any_greedy=True,
            any_random=True,
            largest_top_k=self.with_.model.vocab_size if anything else 0,
            any_top_p=anything,
            any_min_p=anything,
        )
