"""torch's flex_attention (arXiv 2412.05496), compiled once for all layers of a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from vllm_plugin_flex_attention.tiles import tiles

GRAPHS = 256  # that may be compiled in a process: settings of layers times a few kinds of batches


@cache
def kernel(compiled: bool) -> Callable[..., Any]:
    """flex_attention for sizes that change from call to call; unfused if not ``compiled``.

    Batch and lengths are symbols of the compiled code. Sizes of one are not (torch makes code of
    their own for them), so there are graphs for one sequence and for several, one query and several.
    """
    return torch.compile(flex_attention, backend="inductor" if compiled else "eager", dynamic=True, fullgraph=True)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float,
    soft_cap: float | None,
    lse: bool,
    compiled: bool,
) -> tuple[Tensor, Tensor | None]:
    """q [S, H, Q, k_dim], k and v [S, KV, L, dim] -> [S, H, Q, v_dim] and float32 [S, H, Q] if ``lse`` is asked for."""

    cap = soft_cap or 0.0

    def capped(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    more = {"return_aux": AuxRequest(lse=True)} if lse else {}
    # A scale or cap that became a symbol, because layers differ in it, would not compile on CPUs.
    with torch._dynamo.config.patch(specialize_float=True, recompile_limit=GRAPHS, accumulated_recompile_limit=GRAPHS):
        found = kernel(compiled)(
            q,
            k,
            v,
            score_mod=None if soft_cap is None else capped,
            block_mask=mask,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
            kernel_options=tiles(q, k, v) if compiled and q.is_cuda else {},
            **more,
        )
    return (found[0], found[1].lse) if lse else (found, None)
