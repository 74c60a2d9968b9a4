"""Tokens of some rows as one ragged batch: where each stands in its row, and in the pages of every cache group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vllm_core.interfaces.attention import AttentionStep
from vllm_core.runner.rows import Rows
from vllm_core.runner.step_ops import StepOps


def token_arrays(rows: Rows, row: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """What the device must be told of ``lengths[i]`` tokens of row ``row[i]``: int64 arrays, for one transfer."""
    starts = np.zeros(len(row) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    row_of_token = np.repeat(row, lengths)
    return {
        "row": row,
        "lengths": lengths,
        "starts": starts,
        "sequence": np.repeat(np.arange(len(row)), lengths),
        "offset": np.arange(int(starts[-1])) - np.repeat(starts[:-1], lengths),
        "token_base": row_of_token * rows.room,
    }


def attention_steps(
    rows: Rows,
    ops: StepOps,
    row: Tensor,
    starts: Tensor,
    sequence: Tensor,
    positions: Tensor,
    kv_lens: Tensor,
    query_lens: Sequence[int],
    kv_bounds: Sequence[int],
) -> list[AttentionStep]:
    """One a cache group.

    row, starts           int64 [S], the row of each sequence, and [S + 1], its first token
    sequence, positions   int64 [T], of each token
    kv_lens               int32 [S]
    """
    starts, longest = starts.int(), max(kv_bounds)
    steps = []
    for group, block_size in enumerate(rows.block_sizes):
        table, blocks = rows.block_tables[group], rows.blocks[group]
        if rows.by_position[group]:
            width = min(-(-longest // block_size), blocks)
            block_table, slots = ops.page_slots(table, row, sequence, positions, block_size, width)
        else:
            block_table, slots = table[:, :blocks].index_select(0, row), positions.new_zeros(positions.shape)
        steps.append(
            AttentionStep(
                num_tokens=len(positions),
                query_lens=query_lens,
                kv_bounds=kv_bounds,
                query_starts=starts,
                kv_lens=kv_lens,
                block_table=block_table,
                slots=slots,
            )
        )
    return steps
