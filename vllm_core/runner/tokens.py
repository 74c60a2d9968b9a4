"""Tokens of some rows as one ragged batch: where each stands in its row, and in the pages of every cache group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from vllm_core.interfaces.attention import AttentionStep
from vllm_core.runner.rows import Rows


def token_arrays(rows: Rows, row: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """What the device must be told of ``lengths[i]`` tokens of row ``row[i]``: int64 arrays, for one transfer."""
    starts = np.zeros(len(row) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    row_of_token = np.repeat(row, lengths)
    host = {
        "row": row,
        "lengths": lengths,
        "starts": starts,
        "sequence": np.repeat(np.arange(len(row)), lengths),
        "offset": np.arange(int(starts[-1])) - np.repeat(starts[:-1], lengths),
        "token_base": row_of_token * rows.room,
    }
    for group, blocks in enumerate(rows.blocks):
        if rows.by_position[group]:
            host[f"block_base{group}"] = row_of_token * (blocks + 1)
    return host


def attention_steps(
    rows: Rows,
    dev: Mapping[str, Tensor],
    positions: Tensor,
    kv_lens: Tensor,
    query_lens: Sequence[int],
    kv_bounds: Sequence[int],
) -> list[AttentionStep]:
    """One a cache group. ``dev``: `token_arrays` on the device; positions int64 [T]; kv_lens int32 [S]."""
    starts, longest = dev["starts"].int(), max(kv_bounds)
    steps = []
    for group, block_size in enumerate(rows.block_sizes):
        table, blocks = rows.block_tables[group], rows.blocks[group]
        if rows.by_position[group]:
            width = min(-(-longest // block_size), blocks)
            block = positions.div(block_size, rounding_mode="floor")
            page = table.view(-1).index_select(0, block.clamp_max(blocks) + dev[f"block_base{group}"])
            # page * block_size + position % block_size
            slots = positions.add(page.long().sub_(block), alpha=block_size)
        else:
            width, slots = blocks, positions.new_zeros(positions.shape)
        steps.append(
            AttentionStep(
                num_tokens=len(positions),
                query_lens=query_lens,
                kv_bounds=kv_bounds,
                query_starts=starts,
                kv_lens=kv_lens,
                block_table=table[:, :width].index_select(0, dev["row"]),
                slots=slots,
            )
        )
    return steps
