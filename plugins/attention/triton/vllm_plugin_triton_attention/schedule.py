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
    sequences,  # S
    most,  # queries that a sequence with few may have
    KEYS: tl.constexpr,  # a tile of the first
    QUERIES: tl.constexpr,  # a tile of the second
    WINDOW: tl.constexpr,  # tokens; 0: none
    SPAN: tl.constexpr,  # sequences at a time
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
