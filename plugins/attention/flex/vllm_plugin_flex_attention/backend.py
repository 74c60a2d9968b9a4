"""The attention backend ``flex``."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.ops import write_kv
from vllm_plugin_flex_attention.kernel import attend
from vllm_plugin_flex_attention.schedule import Piece, schedule


class FlexAttention:
    """``AttentionBackend`` for pages [P, block, heads, dim], "NHD".

    A step's pages are copied next to each other, sequence by sequence. The kernel cannot read them
    where they lie: keys and values share a page, so that tokens of different pages are at no common
    stride, and slots that nobody wrote, which a mask hides, would turn results into NaN (0 * NaN).
    """

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        self.compiled = bool(config.options.get("compile", True))
        # On a GPU it costs next to nothing, and the kernel need not be compiled once with and once without.
        self.always_lse = self.compiled and config.device.type == "cuda"

    def begin_step(self, step: AttentionStep) -> list[Piece]:
        return schedule(step, self.config)

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
        config = self.config
        out = q.new_empty(*q.shape[:-1], config.v_dim)
        for piece in metadata:
            queries = q[piece.tokens].transpose(1, 2)  # [S, H, Q, k_dim]
            part, total = attend(
                queries,
                piece.gather(pages[0]),
                piece.gather(pages[1], clean=True),
                piece.mask,
                scale=config.scale,
                soft_cap=config.soft_cap,
                lse=self.always_lse or lse is not None or sinks is not None,
                compiled=self.compiled,
            )
            part = part.transpose(1, 2).flatten(0, 1)[piece.kept]  # [tokens, H, v_dim]
            if total is not None:
                total = total.transpose(1, 2).flatten(0, 1)[piece.kept]
                if sinks is not None:
                    # One more exp(sink) under the fraction of the softmax.
                    part = part * torch.sigmoid(total - sinks.float()).unsqueeze(-1)
                    total = torch.logaddexp(total, sinks.float())
                if lse is not None:
                    lse[piece.rows] = total
            out[piece.rows] = part.to(q.dtype)
        return out
