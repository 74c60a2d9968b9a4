"""The page layout ``token_kv``: [page, token, (key, value), head, dim]."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.cache import BYTES, CacheSpec
from vllm_core.layers.page_layouts import attention_spec


class TokenLayout:
    """``CacheLayout``: tokens at one stride across pages, so that pages in a row are one matrix.

    With "NHD" all keys of a page come before its values, and the next page's keys are not
    where a matrix would have them.
    """

    def __init__(self, layout: str) -> None:
        self.layout = layout

    def page_bytes(self, spec: CacheSpec, block_size: int) -> int:
        return attention_spec(spec).bytes_per_token * block_size

    def views(self, pages: Tensor, spec: CacheSpec, block_size: int) -> tuple[Tensor, Tensor]:
        """pages uint8 [P, page_bytes] -> keys [P, block, heads, k_dim], values [P, block, heads, v_dim]."""
        spec = attention_spec(spec)
        used = pages[:, : spec.bytes_per_token * block_size].view(getattr(torch, spec.dtype))
        tokens = used.unflatten(1, (block_size, spec.bytes_per_token // BYTES[spec.dtype]))
        k, v = tokens.split((spec.num_kv_heads * spec.k_dim, spec.num_kv_heads * spec.v_dim), dim=-1)
        return k.unflatten(-1, (spec.num_kv_heads, spec.k_dim)), v.unflatten(-1, (spec.num_kv_heads, spec.v_dim))
