"""The attention backend ``triton``."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_plugin_triton_attention.kernels import Kernels
from vllm_plugin_triton_attention.scores import LOG2E
from vllm_plugin_triton_attention.variants import aligned

MANY = 128  # sequences: with so many ends and beginnings, a third program a multiprocessor fills the gaps


@attrs.define(slots=True)
class Metadata:
    """What a step's layers share."""

    sequences: int
    queries: int  # that a sequence may have to be decoded
    short: Any = None  # the decoding kernels for sequences with few queries; None: there are none
    programs: int = 0  # of a KV head that share their keys
    shared: int = 0  # bytes of shared memory for each of them; 0: what they need
    tiles: int = 0  # of sequences with many queries, at most
    short_tiles: Tensor | None = None  # of `schedule`
    work: Tensor | None = None


class TritonAttention:
    """``AttentionBackend`` for pages in "HND" or "NHD". Everything is compiled when it is made."""

    def __init__(self, config: AttentionConfig) -> None:
        if config.scale <= 0:
            raise ValueError(f"scores are scaled by a positive number, and scale is {config.scale}")
        self.config, self.kernels = config, Kernels(config)
        self.group = config.num_heads // config.num_kv_heads
        self.scale = config.scale * LOG2E.value if config.soft_cap is None else config.scale / config.soft_cap
        self.q_multiple = aligned(config, config.num_heads * config.k_dim)
        self.kv_multiple = aligned(config, config.k_dim, config.v_dim)
        self.invariant = bool(config.options.get("batch_invariant", False))

    def begin_step(self, step: AttentionStep) -> Metadata:
        sequences = step.kv_lens.shape[0]
        if not step.num_tokens:
            return Metadata(sequences, 0)
        found = self._plan(step, sequences)
        first, second = sequences + 1, 2 * (sequences + 1)
        begin = -(-second // 8) * 8
        memory = torch.empty(begin + 8 * (found.tiles + 1), dtype=torch.int32, device=self.config.device)
        found.short_tiles, found.work = memory[:first], memory[begin:]
        self.kernels.schedule(
            (1, 1, 1), step.query_starts, step.kv_lens, found.short_tiles, memory[first:second], found.work, sequences,
            found.queries,
        )  # fmt: skip
        return found

    def _plan(self, step: AttentionStep, sequences: int) -> Metadata:
        """Which kernels run; in a static step, whichever may have work."""
        kernels = self.kernels
        if self.invariant:  # one kernel for all, in which a program reads all keys of a sequence in order
            return Metadata(sequences, 0, tiles=self._tiles(step, 0))
        for short in kernels.short:
            if step.longest_query * self.group <= short.rows:
                return self._decoding(step, Metadata(sequences, short.rows // self.group, short))
        short = kernels.short[0]
        found = Metadata(sequences, short.rows // self.group)
        found.tiles = self._tiles(step, found.queries)
        if step.static or any(0 < n <= found.queries for n in step.query_lens):
            found.short = short
            self._decoding(step, found)
        return found

    def _tiles(self, step: AttentionStep, queries: int) -> int:
        """Of sequences with more than so many queries, at most."""
        size = self.kernels.queries
        if step.static:
            # Sequences without a full tile have more than ``queries`` queries each.
            return step.num_tokens // size + min(step.kv_lens.shape[0], step.num_tokens // (queries + 1))
        return sum(-(-n // size) for n in step.query_lens if n > queries)

    def _decoding(self, step: AttentionStep, found: Metadata) -> Metadata:
        tiles = found.sequences * -(-step.longest_kv // found.short.keys)
        short, many = found.short, found.sequences >= MANY
        found.programs = max(1, min(short.programs if many else short.few, tiles))
        found.shared = 0 if many else short.few_shared
        return found

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        k, v = self._aligned(k), self._aligned(v)
        self.kernels.write(
            (len(k), 1, 1), k, v, pages[0], pages[1], step.slots,
            k.stride(0), v.stride(0), k.stride(1), v.stride(1), pages[0].stride(0),
        )  # fmt: skip

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: Metadata,
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        c = self.config
        out = q.new_empty(q.shape[0], c.num_heads, c.v_dim)
        if not step.num_tokens:
            return out
        if q.stride(1) != c.k_dim or q.stride(2) != 1 or q.stride(0) % self.q_multiple or q.data_ptr() % 16:
            q = q.contiguous()
        if sinks is not None and sinks.dtype != c.dtype:
            sinks = sinks.to(c.dtype)
        m, k, v = metadata, pages[0], pages[1]
        if k.stride(0) * k.itemsize % 16:
            raise ValueError(f"pages lie {k.stride(0) * k.itemsize:,} bytes apart, which is not a multiple of 16 bytes")
        total = out if lse is None else lse  # an address that is not written to
        logits = out if sinks is None else sinks
        table, want = step.block_table, int(lse is not None)
        if m.short is not None:
            d = m.short
            d.decode(
                (c.num_kv_heads, m.programs, 1), q, k, v, out, total, d.parts, d.sums, table, step.query_starts,
                step.kv_lens, m.short_tiles, logits, self.scale, m.sequences, q.stride(0), table.stride(0),
                k.stride(0), want, shared=m.shared,
            )  # fmt: skip
            if m.programs > 1:
                longest = min(m.queries, step.longest_query)
                d.combine(
                    (c.num_heads, m.programs - 1, longest), d.parts, d.sums, out, total, step.query_starts,
                    m.short_tiles, logits, m.sequences, m.programs, want,
                )  # fmt: skip
        if m.tiles:
            self._prefill(q, k, v, out, total, m, step, (logits, self.scale, q.stride(0), table.stride(0)), want)
        return out

    def _prefill(
        self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, total: Tensor, m: Metadata, step: AttentionStep,
        numbers: tuple[Any, ...], want: int,
    ) -> None:  # fmt: skip
        kernels, heads = self.kernels, self.config.num_kv_heads
        programs = m.tiles * heads
        if kernels.copied and not step.static and not self.invariant:
            run = kernels.prefill
            described = [
                make(x, (x.shape[0], heads * x.shape[2], x.shape[3]), (x.stride(0), x.stride(2), 1))
                for make, x in zip(run.descriptors, (k, v), strict=True)
            ]
            run((programs, 1, 1), q, out, total, step.block_table, m.work, *numbers, want, descriptors=described)
            return
        run = kernels.prefill
        if step.static or self.invariant:  # the same kernel in a captured step and beside it
            programs, run = min(programs, kernels.slots), kernels.prefill_static
        run((programs, 1, 1), q, k, v, out, total, step.block_table, m.work, *numbers, k.stride(0), want)

    def _aligned(self, x: Tensor) -> Tensor:
        """Keys or values as the kernel reads them: rows in one piece, 16 bytes at a time."""
        token, head, element = x.stride()
        return x if element == 1 and not (token | head) % self.kv_multiple and not x.data_ptr() % 16 else x.contiguous()
