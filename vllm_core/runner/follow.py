"""What a proposer with caches of its own is given behind every step: `interfaces.proposer.Follower`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vllm_core.interfaces.attention import AttentionBackend
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.proposer import Pass, RowView
from vllm_core.interfaces.sampler import Sampler, SamplingTensors
from vllm_core.interfaces.steps import StepPlan
from vllm_core.ops.sampler import draw
from vllm_core.runner.inputs import Inputs
from vllm_core.runner.noise import GUESS, SAMPLE
from vllm_core.runner.rows import Rows
from vllm_core.runner.staging import upload
from vllm_core.runner.tokens import attention_steps, token_arrays
from vllm_core.runner.verify import sampling_tensors


class RunStep:
    """One step, after the rows have moved on.

    backends_of   model's name -> one backend a cache group; None in groups that the model has no cache in
    """

    def __init__(
        self,
        plan: StepPlan,
        inputs: Inputs,
        rows: Rows,
        sampler: Sampler,
        backends_of: Callable[[str], Sequence[AttentionBackend | None]],
    ) -> None:
        self._plan, self._inputs, self._rows = plan, inputs, rows
        self._sampler, self._backends_of = sampler, backends_of
        self._uploaded: dict[tuple[bool, tuple[int, ...]], dict[str, Tensor]] = {}
        self.rows, self.sampling_rows = inputs.rows, inputs.sampling_rows
        self.sampled = inputs.sampling
        self.sampling: list[int] = inputs.sampling_host.tolist()
        self.computed = [n - k for n, k in zip(plan.num_tokens, plan.num_drafts, strict=True)]
        self.view: RowView = rows.view

    def batch(self, model: str, lengths: Sequence[int], *, ahead: int = 0, sampling_only: bool = False) -> Pass:
        rows, plan, which = self._rows, self._plan, range(len(self._plan.rows))
        chosen = self.sampling if sampling_only else which
        if len(lengths) != len(chosen) or min(lengths) < 1:
            raise ValueError(f"a batch of {len(chosen)} rows needs as many lengths of 1 or more, not {lengths}")
        key = (sampling_only, tuple(lengths))
        dev = self._uploaded.get(key)
        if dev is None:
            row = np.array(plan.rows, dtype=np.int64)[np.array(chosen, dtype=np.int64)]
            host = token_arrays(rows, row, np.array(lengths, dtype=np.int64))
            host["known"] = np.array([plan.samples[i] for i in chosen], dtype=np.int64)
            dev = self._uploaded[key] = upload(host, rows.device)
        # A row that did not sample has more known tokens than computed ones: the rest of its prompt.
        computed = rows.num_computed.index_select(0, dev["row"]).long()
        ends = computed + dev["known"] + ahead
        last = rows.max_kv - 1
        positions = (ends - dev["lengths"]).index_select(0, dev["sequence"]) + dev["offset"]
        positions.clamp_(0, last)
        ids = rows.token_ids.view(-1).index_select(0, positions + dev["token_base"]).clamp_min_(0).long()
        bounds = [min(plan.kv_bounds[i] + plan.samples[i] + ahead, rows.max_kv) for i in chosen]
        places = (dev["row"], dev["starts"], dev["sequence"], positions)
        kv_lens = ends.clamp_max(rows.max_kv).int()
        attention = attention_steps(rows, self._inputs.ops, *places, kv_lens, lengths, bounds)
        metadata = [
            None if backend is None else backend.begin_step(step)
            for backend, step in zip(self._backends_of(model), attention, strict=True)
        ]
        batch = Batch(num_tokens=len(positions), positions=positions, attention=attention, metadata=metadata)
        return Pass(ids=ids, batch=batch, last=dev["starts"][1:] - 1)

    def draw(self, logits: Tensor, ahead: int = 0) -> Tensor:
        return self._sampler(logits, self._sampling(ahead, SAMPLE)).long()

    def guess(self, logits: Tensor, ahead: int = 0) -> tuple[Tensor, Tensor]:
        params = self._sampling(ahead, GUESS)
        probs = self._sampler.probs(logits, params)
        return draw(probs, params.noise), probs

    def _sampling(self, ahead: int, stream: int) -> SamplingTensors:
        inputs, rows = self._inputs, self._rows
        lines = inputs.sampling_rows
        ends = rows.num_tokens.index_select(0, lines).long() + ahead
        return sampling_tensors(rows, inputs.ops, lines, inputs.sampling_rows_host, ends, stream)


def stack_of(model: Any) -> Any:
    """Where hidden states between layers can be had."""
    stack = getattr(model, "layers", None)
    if not hasattr(stack, "tap"):
        raise ValueError(
            f"the draft proposer reads hidden states between layers, and {type(model).__name__} keeps none: "
            "its layers are not a LayerStack"
        )
    return stack
