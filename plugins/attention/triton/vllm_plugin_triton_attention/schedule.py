"""Which programs compute what, found on the device: lengths are known there, and a captured step has no others."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def schedule(
    starts,  # int32 [S + 1]
    lens,  # int32 [S]
    short_tiles,  # int32 [S + 1], filled: tiles of keys before each sequence with few queries
    long_tiles,  # int32 [S + 1], filled: tiles of queries before each of the others
    work,  # int32 [1 + tiles, 8], filled: how many tiles of queries there are, and what `prefill` must know of each
    sequences,  # S
    most,  # queries that a sequence with few may have
    KEYS: tl.constexpr,  # a tile of the first
    QUERIES: tl.constexpr,  # a tile of the second
    WINDOW: tl.constexpr,  # tokens; 0: none
    SPAN: tl.constexpr,  # sequences at a time
    TILES: tl.constexpr,  # tiles at a time
):
    """One program. Sums of tiles over the sequences before: a tile's sequence is where it fits in."""
    shorts, longs = 0, 0
    tl.store(short_tiles, 0)
    tl.store(long_tiles, 0)
    for base in range(0, sequences, SPAN):
        s = base + tl.arange(0, SPAN)
        here = s < sequences
        queries = tl.load(starts + s + 1, here, 0) - tl.load(starts + s, here, 0)
        length = tl.load(lens + s, here, 0)
        first = first_key(length - queries, WINDOW)
        # A query without any key has a tile, too: somebody must write zeros.
        tiles = tl.maximum((length + KEYS - 1) // KEYS - first // KEYS, 1)
        short = tl.cumsum(tl.where((queries > 0) & (queries <= most), tiles, 0)) + shorts
        long = tl.cumsum(tl.where(queries > most, (queries + QUERIES - 1) // QUERIES, 0)) + longs
        tl.store(short_tiles + s + 1, short, here)
        tl.store(long_tiles + s + 1, long, here)
        shorts, longs = tl.max(short), tl.max(long)
    tl.store(work, longs)
    tl.debug_barrier()  # sums that other threads stored are read
    for base in range(0, longs, TILES):
        tile = base + tl.arange(0, TILES)
        there = tile < longs
        s = tl.zeros([TILES], tl.int32)
        for first in range(0, sequences, SPAN):
            other = first + tl.arange(0, SPAN)
            ends = tl.load(long_tiles + 1 + other, other < sequences, 2147483647)
            s += tl.sum((ends[None, :] <= tile[:, None]).to(tl.int32), 1)
        token = tl.load(starts + s, there, 0)
        at = work + (tile + 1) * 8
        tl.store(at, s, there)
        tl.store(at + 1, token, there)
        tl.store(at + 2, tl.load(starts + s + 1, there, 0) - token, there)
        tl.store(at + 3, tl.load(lens + s, there, 0), there)
        tl.store(at + 4, (tile - tl.load(long_tiles + s, there, 0)) * QUERIES, there)


@triton.jit
def tile_of(work, tile):
    """Of a tile of queries: its sequence, the sequence's first token, queries and length, and queries before it."""
    at = work + (tile + 1) * 8
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)


@triton.jit
def first_key(position, WINDOW: tl.constexpr):
    """The first key that a query at ``position`` sees."""
    if WINDOW > 0:
        found = tl.maximum(position - WINDOW + 1, 0)
    else:
        found = position * 0
    return found


@triton.jit
def sequence_of(tile, tiles, sequences, SPAN: tl.constexpr):
    """The sequence that ``tile`` belongs to, by the sums of `schedule`."""
    found = 0
    for base in range(0, sequences, SPAN):
        s = base + tl.arange(0, SPAN)
        ends = tl.load(tiles + 1 + s, s < sequences, 2147483647)
        found += tl.sum((ends <= tile).to(tl.int32))
    return found
