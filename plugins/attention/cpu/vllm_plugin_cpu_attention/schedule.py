"""From a step to pieces of work: which sequences are computed together, and how."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_plugin_cpu_attention.work import Work

FOLD_QUERIES = 8  # up to so many queries a sequence is a decoding row: drafts, or a prompt's last few tokens
PADDING_SHARE = 0.25  # of a bucket's keys may be padding; more, and another call of the kernel is cheaper
PADDING_KEYS = 512  # that are always allowed
BUCKET_BYTES = 4 << 20  # of keys and values copied at a time, so that they are still in the cache when read


@attrs.frozen
class Sequence:
    """One sequence of the step."""

    index: int
    start: int  # of its queries among the step's tokens
    queries: int
    length: int  # cached tokens, this step's included
    first_block: int  # blocks before it are behind the window of all its queries
    keys: int  # from the first key of that block on


def schedule(step: AttentionStep, config: AttentionConfig) -> list[Work]:
    """The step's work."""
    table = step.block_table.numpy()
    decoding: dict[int, list[Sequence]] = {}
    work: list[Work] = []
    for s in _sequences(step, config):
        if s.queries <= FOLD_QUERIES:
            decoding.setdefault(s.queries, []).append(s)
        else:
            work.append(_together([s], table, config))
    for rows in decoding.values():
        work += [_together(bucket, table, config) for bucket in _buckets(rows, config)]
    return work


def _sequences(step: AttentionStep, config: AttentionConfig) -> Iterator[Sequence]:
    start = 0
    for i, (queries, length) in enumerate(zip(step.query_lens, step.kv_lens.tolist(), strict=True)):
        if queries:
            behind = 0 if config.window is None else max(0, length - queries - config.window + 1)
            block = behind // config.block_size
            yield Sequence(i, start, queries, length, block, length - block * config.block_size)
        start += queries


def _buckets(rows: list[Sequence], config: AttentionConfig) -> Iterator[list[Sequence]]:
    """Sequences of like lengths, in the order of the step as long as one bucket does."""
    token_bytes = 2 * config.num_kv_heads * config.k_dim * config.kv_dtype.itemsize
    most = max(1, BUCKET_BYTES // token_bytes)
    bucket: list[Sequence] = []
    useful = 0
    for s in sorted(rows, key=lambda s: -s.keys):
        if bucket:
            padded = bucket[0].keys * (len(bucket) + 1)
            if padded > most or padded - useful - s.keys > max(PADDING_KEYS, PADDING_SHARE * padded):
                yield sorted(bucket, key=lambda s: s.index)
                bucket, useful = [], 0
        bucket.append(s)
        useful += s.keys
    yield sorted(bucket, key=lambda s: s.index)


def _together(rows: list[Sequence], table: np.ndarray, config: AttentionConfig) -> Work:
    queries, keys, block = rows[0].queries, max(s.keys for s in rows), config.block_size
    fold = queries <= FOLD_QUERIES
    causal = config.causal and config.window is None and len(rows) == 1 and queries == keys and not fold
    mask = None if causal else _mask(rows, keys, config)
    if mask is not None and fold and queries > 1:
        mask = mask.repeat(1, 1, config.num_heads // config.num_kv_heads, 1)
    blocks = -(-keys // block)
    # A shorter sequence repeats its first page; what that puts in the copy is overwritten with zeros.
    pages = np.repeat(np.array([[table[s.index, s.first_block]] for s in rows], dtype=np.int64), blocks, axis=1)
    for i, s in enumerate(rows):
        own = -(-s.keys // block)
        pages[i, :own] = table[s.index, s.first_block : s.first_block + own]
    unwritten = np.concatenate([np.arange(s.keys, keys) + i * blocks * block for i, s in enumerate(rows)])
    return Work(
        rows=_token_rows(rows),
        sequences=len(rows),
        queries=queries,
        keys=keys,
        mask=mask,
        fold=fold,
        causal=causal,
        pages=torch.from_numpy(pages.reshape(-1)),
        room=blocks * block,
        unwritten=torch.from_numpy(unwritten) if len(unwritten) else None,
    )


def _token_rows(rows: list[Sequence]) -> slice | Tensor:
    """Where the queries are among the step's tokens: a slice if they are neighbours."""
    start, stop = rows[0].start, rows[-1].start + rows[-1].queries
    if stop - start == sum(s.queries for s in rows):
        return slice(start, stop)
    return torch.cat([torch.arange(s.start, s.start + s.queries) for s in rows])


def _mask(rows: list[Sequence], keys: int, config: AttentionConfig) -> Tensor | None:
    """[S, 1, Q, L], 0 where a query sees a key and -inf elsewhere; None if it sees all."""
    queries = rows[0].queries
    lengths = torch.tensor([s.keys for s in rows])[:, None, None]
    key = torch.arange(keys)
    query = lengths - queries + torch.arange(queries)[:, None]  # [S, Q, 1], counted like keys
    hidden = key >= lengths
    if config.causal:
        hidden = hidden | (key > query)
    if config.window is not None:
        hidden = hidden | (query - key >= config.window)
    if not bool(hidden.any()):
        return None
    hidden = hidden.expand(len(rows), queries, keys)
    return torch.zeros(hidden.shape, dtype=config.dtype).masked_fill_(hidden, float("-inf")).unsqueeze(1)
