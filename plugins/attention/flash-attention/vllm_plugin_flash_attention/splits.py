"""Decoding with few sequences: each is cut into parts, which are computed as sequences and then put together.

flash-attn-4 does not do this on Hopper itself ("flash decoding").
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn.functional import pad

SHORTEST = 512  # tokens of a part: below, putting together costs more than it gains


@attrs.frozen
class Split:
    """S sequences of one query each as S * count sequences; some may have no keys."""

    count: int
    query_starts: Tensor  # int32 [S * count + 1]
    kv_lens: Tensor  # int32 [S * count]
    table: Tensor  # int32 [S * count, W / count]


def split(table: Tensor, lengths: Tensor, block: int, wanted: int) -> Split | None:
    """``wanted`` parts or fewer, all but the last of a sequence equally long; None if one is enough.

    table int32 [S, W], lengths int32 [S]. W bounds the lengths, also of a step that is captured.
    """
    rows, width = table.shape
    count = min(wanted, width * block // SHORTEST)
    if count < 2:
        return None
    columns = -(-width // count)
    begins = torch.arange(0, count * columns * block, columns * block, dtype=torch.int32, device=table.device)
    return Split(
        count=count,
        query_starts=torch.arange(rows * count + 1, dtype=torch.int32, device=table.device),
        kv_lens=(lengths[:, None] - begins).clamp_(0, columns * block).flatten(),
        table=pad(table, (0, count * columns - width)).view(rows * count, columns),
    )


def merge(out: Tensor, totals: Tensor, count: int, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """out [S * count, H, dim], totals [H, S * count], sinks [H] -> [S, H, dim] and float32 [S, H].

    A sink is a part without values. What stands in ``out`` for a part without keys may be anything, NaN too.
    """
    heads = len(totals)
    shares = totals.view(heads, -1, count).transpose(0, 1)  # [S, H, count]
    if sinks is not None:
        shares = torch.cat((shares, sinks.float()[None, :, None].expand(len(shares), -1, 1)), dim=-1)
    weights = shares.softmax(-1)[..., :count].transpose(1, 2).unsqueeze(-1)  # [S, count, H, 1]
    whole = torch.where(weights > 0, out.unflatten(0, (-1, count)) * weights, 0).sum(1)
    return whole.to(out.dtype), shares.logsumexp(-1)
