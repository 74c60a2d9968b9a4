"""The step on the device: inputs gathered from the rows, and the rows moved past what was drawn.

Shared by these contracts:

- R rows with room for L tokens each, as ``runner.rows.Rows`` keeps them; S sequences are in the step, sequence s
  being row ``rows[s]``. Rows are all different, but for those that only fill a captured graph up.
- Shapes follow from the arguments' shapes and from plain integers, never from what a tensor holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.ops.noise import uniform
from vllm_core.ops.table import op


@op
def step_inputs(
    token_ids: Tensor, num_computed: Tensor, rows: Tensor, starts: Tensor, num_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which tokens a step computes: each sequence goes on where its row stands.

    token_ids      int32 [R, L]; -1 where a draft has no guess.
    num_computed   int32 [R], tokens whose cache entries are present.
    rows           int64 [S].
    starts         int64 [S + 1], each sequence's first token among the step's; equal to the next one's where a
                   sequence has none. The last is T.
    num_tokens     T.
    Returns        ids int64 [T], 0 where there is no guess; positions int64 [T] in the sequence; the sequence of each
                   token, int64 [T]; kv_lens int32 [S], tokens in the cache after this step, 0 for a sequence that
                   has no token in it.
    A position beyond L reads the row's last id.
    Query          (nothing).
    """
    count = starts[1:] - starts[:-1]
    computed = num_computed.index_select(0, rows)
    token = torch.arange(num_tokens, device=rows.device)
    sequence = torch.searchsorted(starts, token, right=True).sub_(1).clamp_max_(len(rows) - 1)
    positions = (computed - starts[:-1]).index_select(0, sequence) + token
    row, room = rows.index_select(0, sequence), token_ids.shape[1]
    ids = token_ids.view(-1).index_select(0, row * room + positions.clamp_max(room - 1))
    kv_lens = torch.where(count > 0, computed + count, 0).int()
    return ids.clamp_min_(0).long(), positions, sequence, kv_lens


@op
def page_slots(
    table: Tensor, rows: Tensor, sequence: Tensor, positions: Tensor, block_size: int, width: int
) -> tuple[Tensor, Tensor]:
    """Where a step's tokens lie in the pages of one cache group.

    table                 int32 [R, B + 1], the page of each block; the last column is NULL_PAGE (0).
    rows                  int64 [S].
    sequence, positions   int64 [T], of each token.
    block_size            tokens a page.
    width                 blocks of a sequence that attention may look at, at most B.
    Returns               block_table int32 [S, width], the rows' first columns; slots int64 [T], page * block_size +
                          place in the page. Past the last block they are in page 0.
    Query                 block_size.
    """
    blocks = table.shape[1] - 1
    block = positions.div(block_size, rounding_mode="floor")
    row = rows.index_select(0, sequence)
    page = table.view(-1).index_select(0, row * (blocks + 1) + block.clamp_max(blocks)).long()
    # page * block_size + positions % block_size
    return table[:, :width].index_select(0, rows), positions.add(page.sub_(block), alpha=block_size)


@op
def sampling_rows(
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seed: Tensor,
    rows: Tensor,
    ends: Tensor,
    stream: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """How M lines of logits are drawn: their rows' parameters, and noise.

    temperature, top_p, min_p   float32 [R];  top_k, seed   int64 [R].
    rows                        int64 [M], of each line; several lines may have the same.
    ends                        int64 [M], tokens before the one that is drawn.
    stream                      what the noise is for (``ops.noise``).
    Returns                     temperature, top_k, top_p, min_p of each line, dtypes kept; and noise float64 [M],
                                ``ops.noise.uniform`` of the row's seed and ``ends``, bit for bit.
    Query                       (nothing).
    """
    noise = uniform(seed.index_select(0, rows), ends, stream)
    taken = (parameter.index_select(0, rows) for parameter in (temperature, top_k, top_p, min_p))
    return (*taken, noise)  # type: ignore[return-value]


@op
def commit_tokens(
    token_ids: Tensor,
    num_tokens: Tensor,
    num_computed: Tensor,
    rows: Tensor,
    advance: Tensor,
    sampling: Tensor,
    emitted: Tensor,
    accepted: Tensor,
    result: Tensor,
    emits: Tensor | None = None,
) -> None:
    """Move the rows past a step, and write down what it drew.

    token_ids      int32 [R, L], written: every column of ``emitted``, behind the known tokens of its row.
    num_tokens     int32 [R], of each row's known tokens; grows by ``accepted`` + 1.
    num_computed   int32 [R]; grows by ``advance``, and by ``accepted``.
    rows           int64 [S].
    advance        int64 [S], tokens computed for certain: all but drafts.
    sampling       int64 [N], which of the S sequences the lines of ``emitted`` belong to.
    emitted        int64 [N, 1 + D], -1 after the last token.
    accepted       int64 [N], drafts that stand; one more token is emitted.
    result         int32 [S, 1 + K], K >= D, filled: -1 but where a sequence emitted.
    emits          bool or int64 [N]: where it is 0 the line only fills a graph up, or ends inside a prompt: it changes
                   nothing, and its row or sequence may be another line's. None: all emit.
    Rows that occur twice must have ``advance`` 0 and lines that do not emit.
    Query          (nothing).
    """
    real = torch.ones_like(accepted, dtype=torch.bool) if emits is None else emits != 0
    line_rows, room = rows.index_select(0, sampling), token_ids.shape[1]
    column = torch.arange(emitted.shape[1], device=rows.device)
    at = num_tokens.index_select(0, line_rows)[:, None] + column
    at = (line_rows[:, None] * room + at.clamp_max(room - 1)).view(-1)
    flat = token_ids.view(-1)
    new = torch.where(real[:, None], emitted, -1).int()
    if emits is None:
        flat.index_copy_(0, at, new.view(-1))
    else:
        # A line that writes nothing adds 0, wherever it points.
        change = torch.where(real[:, None], new - flat.index_select(0, at).view_as(new), 0)
        flat.index_add_(0, at, change.view(-1))
    num_tokens.index_add_(0, line_rows, torch.where(real, accepted + 1, 0).int())
    num_computed.index_add_(0, rows, advance.int())
    num_computed.index_add_(0, line_rows, torch.where(real, accepted, 0).int())
    result.fill_(-1)
    result[:, : new.shape[1]].index_add_(0, sampling, new + 1)
