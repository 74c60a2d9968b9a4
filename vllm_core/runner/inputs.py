"""This step's inputs, gathered on the device from the rows: the host knows counts, not positions."""

from __future__ import annotations

import attrs
import numpy as np
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.steps import StepPlan
from vllm_core.runner.rows import Rows
from vllm_core.runner.staging import upload
from vllm_core.runner.step_ops import StepOps
from vllm_core.runner.tokens import attention_steps


@attrs.define(slots=True, kw_only=True)
class Inputs:
    """T tokens of S rows; N of the rows sample, at M positions in all (1 + drafts each)."""

    ops: StepOps  # the kernels that made them, for what follows in the step
    ids: Tensor  # int64 [T]; "no guess" drafts read token 0
    batch: Batch
    longest: int  # tokens; no row has more after this step, drafts included
    rows: Tensor  # int64 [S]
    advance: Tensor  # int64 [S], tokens computed for certain: all but drafts
    sampling_rows_host: np.ndarray  # int64 [N], rows that sample
    sampling: Tensor  # int64 [N], which of the S they are
    sampling_host: np.ndarray
    sampling_rows: Tensor  # int64 [N]
    num_drafts: Tensor  # int64 [N]
    max_drafts: int
    logits_at: Tensor  # int64 [M], index of the token whose hidden state gives the logits
    logits_first: Tensor  # int64 [N], each sampling row's first among the M
    logits_rows: Tensor  # int64 [M]
    logits_rows_host: np.ndarray  # int64 [M]
    logits_sampling_host: np.ndarray  # int64 [M], which of the N rows that sample
    logits_drafts_host: np.ndarray  # int64 [M], drafts of its row before each
    logits_ends: Tensor  # int64 [M], tokens before the one that is drawn there, drafts included
    logits_slots: Tensor  # int64 [M], n * (1 + max_drafts) + draft, for a matrix [N, 1 + max_drafts]


def prepare(plan: StepPlan, rows: Rows, ops: StepOps | None = None) -> Inputs:
    """Read nothing back from the device; run few ops, whatever the number of tokens. The plan was checked.

    ops   kernels of a step around the model; None: the core's
    """
    ops = ops or StepOps()
    row = np.array(plan.rows, dtype=np.int64)
    lengths = np.array(plan.num_tokens, dtype=np.int64)
    drafts = np.array(plan.num_drafts, dtype=np.int64)
    starts = np.zeros(len(row) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])

    sampling = np.flatnonzero(plan.samples)
    k = drafts[sampling]
    max_drafts = int(k.max(initial=0))
    ends = np.cumsum(1 + k)
    draft = np.arange((1 + k).sum()) - np.repeat(ends - 1 - k, 1 + k)
    host = {
        "row": row,
        "starts": starts,
        "advance": lengths - drafts,
        "sampling": sampling,
        "sampling_rows": row[sampling],
        "num_drafts": k,
        "logits_at": np.repeat(starts[sampling + 1] - 1 - k, 1 + k) + draft,
        "logits_first": ends - 1 - k,
        "logits_rows": np.repeat(row[sampling], 1 + k),
        "logits_slots": np.repeat(np.arange(len(k)) * (1 + max_drafts), 1 + k) + draft,
    }
    dev = upload(host, rows.device)

    ids, positions, sequence, kv_lens = ops.step_inputs(
        rows.token_ids, rows.num_computed, dev["row"], dev["starts"], int(starts[-1])
    )
    attention = attention_steps(
        rows, ops, dev["row"], dev["starts"], sequence, positions, kv_lens, plan.num_tokens, plan.kv_bounds
    )
    return Inputs(
        ops=ops,
        ids=ids,
        batch=Batch(
            num_tokens=len(positions), positions=positions, attention=attention, metadata=[None] * len(attention)
        ),
        longest=max(plan.kv_bounds),
        rows=dev["row"],
        advance=dev["advance"],
        sampling_rows_host=row[sampling],
        sampling=dev["sampling"],
        sampling_host=sampling,
        sampling_rows=dev["sampling_rows"],
        num_drafts=dev["num_drafts"],
        max_drafts=max_drafts,
        logits_at=dev["logits_at"],
        logits_first=dev["logits_first"],
        logits_rows=dev["logits_rows"],
        logits_rows_host=np.repeat(row[sampling], 1 + k),
        logits_sampling_host=np.repeat(np.arange(len(k)), 1 + k),
        logits_drafts_host=draft,
        # One past the token read: position i predicts token i + 1.
        logits_ends=positions.index_select(0, dev["logits_at"]) + 1,
        logits_slots=dev["logits_slots"],
    )


def check(plan: StepPlan, rows: Rows) -> None:
    """Refuse a plan that would read or write outside a row. Costs no device time."""
    where = f"step {plan.step}"
    parts = (plan.rows, plan.num_tokens, plan.num_drafts, plan.samples, plan.kv_bounds)
    if len({len(part) for part in parts}) != 1:
        raise ValueError(f"{where}: the plan's parallel lists have lengths {[len(part) for part in parts]}")
    if len(set(plan.rows)) != len(plan.rows):
        raise ValueError(f"{where}: a row is scheduled twice in {plan.rows}")
    if min(plan.rows) < 0 or max(plan.rows) >= rows.num_rows:
        raise ValueError(f"{where}: rows run from 0 to {rows.num_rows - 1}, but the plan has {plan.rows}")
    if max(plan.kv_bounds) > rows.max_kv:
        raise ValueError(
            f"{where}: a row may reach {max(plan.kv_bounds):,} cached tokens; there is room for {rows.max_kv:,}"
        )
    for row, n, k, samples, bound in zip(*parts, strict=True):
        if n < 1 + k or k < 0 or n > bound or k > rows.num_drafts or (k and not samples):
            raise ValueError(
                f"{where}, row {row}: {n} tokens of which {k} are drafts (at most {rows.num_drafts}, and only in a "
                f"row that samples), a cache of at most {bound} tokens, samples={samples}: these contradict each other"
            )
