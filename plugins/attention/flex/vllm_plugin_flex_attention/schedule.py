"""From a step to pieces: sequences that one call of the kernel computes, and what each query sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_plugin_flex_attention.tiles import MASK_BLOCK

MASK_BLOCKS = 2  # at least so many along an axis: an axis of one would be compiled anew
COPY_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}  # of keys and values at a time; one sequence may need more
SPREAD = 4  # by how much lengths in a piece may differ


@attrs.frozen(kw_only=True)
class Piece:
    """S sequences padded to Q queries and L keys. Keys are counted from the first block that any query sees."""

    tokens: Tensor  # int64 [S, Q], the queries among the step's tokens; padding repeats some
    rows: Tensor  # int64, the same without padding
    kept: Tensor  # int64, where these are among S * Q
    pages: Tensor  # int64 [S * L / block]
    hidden: Tensor  # bool [S, L, 1, 1]: keys that no query sees, which may be anything
    mask: BlockMask

    def gather(self, pages: Tensor, clean: bool = False) -> Tensor:
        """pages [P, block, KV, dim] -> [S, KV, L, dim]; ``clean``: zeros where nobody looks."""
        found = torch.index_select(pages.flatten(1), 0, self.pages).view(*self.hidden.shape[:2], *pages.shape[2:])
        if clean:
            found.masked_fill_(self.hidden, 0)
        return found.transpose(1, 2)


def schedule(step: AttentionStep, config: AttentionConfig) -> list[Piece]:
    """The step's pieces. Lengths stay on the device; the host's bounds only shape the pieces."""
    starts = [0]
    for count in step.query_lens:
        starts.append(starts[-1] + count)
    return [_piece(members, starts, step, config) for members in _groups(step, config)]


def _groups(step: AttentionStep, config: AttentionConfig) -> Iterator[list[int]]:
    """Sequences of like numbers of queries and like lengths."""
    by_queries: dict[int, list[int]] = {}
    for row, count in enumerate(step.query_lens):
        if count:
            by_queries.setdefault((count - 1).bit_length(), []).append(row)
    token_bytes = config.num_kv_heads * (config.k_dim + config.v_dim) * config.kv_dtype.itemsize
    most = COPY_BYTES.get(config.device.type, COPY_BYTES["cpu"]) // token_bytes
    for rows in by_queries.values():
        group: list[int] = []
        for row in sorted(rows, key=lambda row: -_keys(step, config, [row])):
            if group:
                keys, longest = _keys(step, config, [row]), _keys(step, config, group[:1])
                if keys * SPREAD < longest or _keys(step, config, [*group, row]) * (len(group) + 1) > most:
                    yield sorted(group)
                    group = []
            group.append(row)
        yield sorted(group)


def _keys(step: AttentionStep, config: AttentionConfig, rows: Sequence[int]) -> int:
    """L: a multiple of the mask's blocks and of the pages'."""
    keys = max(step.kv_bounds[row] for row in rows)
    if config.window is not None:
        # The first key that is seen may be anywhere in its block.
        keys = min(keys, config.window - 1 + max(step.query_lens[row] for row in rows) + config.block_size - 1)
    unit = math.lcm(MASK_BLOCK, config.block_size)
    return -(-max(keys, MASK_BLOCKS * MASK_BLOCK) // unit) * unit


def _piece(members: list[int], starts: Sequence[int], step: AttentionStep, config: AttentionConfig) -> Piece:
    device, block = config.device, config.block_size
    queries, keys = max(step.query_lens[row] for row in members), _keys(step, config, members)
    counts = [step.query_lens[row] for row in members]
    row = _upload(members, device)
    length, count = step.kv_lens[row].long(), _upload(counts, device)
    first_block = torch.zeros_like(length)
    if config.window is not None:
        first_block = (length - count - config.window + 1).clamp(min=0) // block
    length = length - first_block * block
    first = length - count  # where the first query stands
    columns = first_block[:, None] + torch.arange(keys // block, device=device)
    table = step.block_table[row].long()
    key = torch.arange(keys, device=device)
    hidden = key >= length[:, None]
    if config.window is not None:
        hidden = hidden | (key <= (first - config.window)[:, None])
    return Piece(
        tokens=_upload(
            [[starts[m] + min(i, n - 1) for i in range(queries)] for m, n in zip(members, counts, strict=True)], device
        ),
        rows=_upload([starts[m] + i for m, n in zip(members, counts, strict=True) for i in range(n)], device),
        kept=_upload([s * queries + i for s, n in enumerate(counts) for i in range(n)], device),
        pages=table.gather(1, columns.clamp(max=table.shape[1] - 1)).flatten(),
        hidden=hidden[..., None, None],
        mask=_mask(first.int(), length.int(), queries, keys, config),
    )


def _mask(first: Tensor, length: Tensor, queries: int, keys: int, config: AttentionConfig) -> BlockMask:
    """Which keys each query sees, and which blocks of keys a block of queries needs at all; int32 [S] both."""
    causal, window = config.causal, config.window
    behind = first - (window or 0)  # int32 [S]: the last key that the first query does not see any more

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        found = key < length[b]
        if causal:
            found = found & (key <= first[b] + query)
        if window is not None:
            found = found & (key > behind[b] + query)
        return found

    tiles, key_tiles = max(MASK_BLOCKS, -(-queries // MASK_BLOCK)), keys // MASK_BLOCK
    start = first[:, None] + MASK_BLOCK * torch.arange(tiles, dtype=torch.int32, device=first.device)  # [S, tiles]
    stop = length[:, None].expand_as(start)
    if causal:
        stop = torch.minimum(stop, start + MASK_BLOCK)
    low = torch.zeros_like(start) if window is None else (start - (window - 1)).clamp(min=0) // MASK_BLOCK
    needed = ((stop + MASK_BLOCK - 1) // MASK_BLOCK - low).clamp(min=0)
    index = low[..., None] + torch.arange(key_tiles, dtype=torch.int32, device=first.device)
    return BlockMask.from_kv_blocks(
        needed[:, None].int().contiguous(),
        index[:, None].clamp(max=key_tiles - 1).int().contiguous(),
        BLOCK_SIZE=(MASK_BLOCK, MASK_BLOCK),
        mask_mod=seen,
        seq_lengths=(queries, keys),
        compute_q_blocks=False,
    )


def _upload(values: list, device: torch.device) -> Tensor:
    """int64, without waiting for the device."""
    made = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return made.to(device, non_blocking=True)
