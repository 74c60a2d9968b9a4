"""The backend with torch's own FlashAttention-2, for which pages are copied next to each other.

Torch's kernel takes no block table: `torch.nn.attention.varlen` (2.13) has the argument, and hands it to
FlashAttention 3 or, on Blackwell, 4, where these are installed and activated.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.ops import write_kv
from vllm_plugin_flash_attention.window import visible

COPY_BYTES = 512 << 20  # of keys and values at a time; one sequence may need more


@attrs.frozen(kw_only=True)
class Piece:
    """N sequences that one call computes."""

    tokens: slice  # their queries among the step's
    longest_query: int
    longest_kv: int
    query_starts: Tensor  # int32 [N + 1]
    kv_starts: Tensor  # int32 [N + 1], in the copy
    kv_lens: Tensor  # int32 [N]
    pages: Tensor  # int32, what is copied, sequence by sequence


class GatheredFlashAttention:
    """``AttentionBackend`` for pages [P, block, heads, dim], "NHD"."""

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        token_bytes = config.num_kv_heads * (config.k_dim + config.v_dim) * config.kv_dtype.itemsize
        self.most = max(1, COPY_BYTES // (token_bytes * config.block_size))  # pages a copy

    def begin_step(self, step: AttentionStep) -> list[Piece]:
        table, lengths, bounds = visible(step, self.config)
        pages = [-(-bound // self.config.block_size) for bound in bounds]
        return [self._piece(rows, step, table, lengths, pages) for rows in self._groups(step, pages)]

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        write_kv(k, v, pages[0], pages[1], step.slots)

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: list[Piece],
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        c = self.config
        out = torch.empty(*q.shape[:-1], c.v_dim, dtype=q.dtype, device=q.device)
        for piece in metadata:
            k, v = (_copy(part, piece.pages) for part in pages[:2])
            found = torch.ops.aten._flash_attention_forward(
                q[piece.tokens],
                k,
                v,
                piece.query_starts,
                piece.kv_starts,
                piece.longest_query,
                piece.longest_kv,
                0.0,
                c.causal,
                False,
                scale=c.scale,
                window_size_left=None if c.window is None else c.window - 1,
                window_size_right=0 if c.causal and c.window is not None else None,
                seqused_k=piece.kv_lens,
            )
            part, totals = found[0], found[1].t()  # [T, H, dim], [T, H]
            if sinks is not None:
                # One more exp(sink) under the fraction of the softmax.
                part = part * torch.sigmoid(totals - sinks.float()).unsqueeze(-1)
                totals = torch.logaddexp(totals, sinks.float())
            out[piece.tokens] = part
            if lse is not None:
                lse[piece.tokens] = totals
        return out

    def _groups(self, step: AttentionStep, pages: list[int]) -> Iterator[list[int]]:
        """Sequences with queries, neighbours as long as their pages fit the copy."""
        group: list[int] = []
        size = 0
        for row, count in enumerate(step.query_lens):
            if not count:
                continue
            if group and size + pages[row] > self.most:
                yield group
                group, size = [], 0
            group.append(row)
            size += pages[row]
        if group:
            yield group

    def _piece(self, rows: list[int], step: AttentionStep, table: Tensor, lengths: Tensor, pages: list[int]) -> Piece:
        counts = np.array([step.query_lens[row] for row in rows])
        first, width, block = sum(step.query_lens[: rows[0]]), table.shape[1], self.config.block_size
        used = np.array([pages[row] for row in rows])
        ends = used.cumsum()
        columns = np.arange(ends[-1]) + np.repeat(np.array(rows) * width - (ends - used), used)
        on_device = _upload([_sums(counts), _sums(used * block), np.array(rows), columns], table.device)
        return Piece(
            tokens=slice(first, first + int(counts.sum())),
            longest_query=int(counts.max()),
            longest_kv=int(used.max()) * block,
            query_starts=on_device[0],
            kv_starts=on_device[1],
            kv_lens=lengths.index_select(0, on_device[2]),
            pages=table.flatten().index_select(0, on_device[3]),
        )


def _copy(pages: Tensor, which: Tensor) -> Tensor:
    """[P, block, KV, dim] -> [tokens, KV, dim]"""
    return pages.flatten(1).index_select(0, which).view(-1, *pages.shape[2:])


def _sums(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], counts.cumsum()))


def _upload(parts: list[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    """int32, in one copy that waits for nothing."""
    made = torch.from_numpy(np.concatenate(parts).astype(np.int32))
    if device.type == "cuda":
        made = made.pin_memory()
    return made.to(device, non_blocking=True).split([len(part) for part in parts])
