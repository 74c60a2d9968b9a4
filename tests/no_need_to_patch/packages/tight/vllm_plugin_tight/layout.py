"""A page: int8 keys and values of its tokens, then a float32 scale for each head and token of both."""

import torch


class Int8Rows:
    def __init__(self, layout):
        self.layout = layout

    def page_bytes(self, spec, block_size):
        return block_size * spec.num_kv_heads * (spec.k_dim + spec.v_dim + 2 * 4)

    def views(self, pages, spec, block_size):
        """keys [P, B, KV, k_dim], values [P, B, KV, v_dim] int8, their scales [P, B, KV, 1] float32."""
        found, start, lines = [], 0, (block_size, spec.num_kv_heads)
        # The scales first: they must begin at a multiple of 4 bytes.
        for size, dtype in ((4, torch.float32), (4, torch.float32), (spec.k_dim, torch.int8), (spec.v_dim, torch.int8)):
            end = start + block_size * spec.num_kv_heads * size
            found.append(pages[:, start:end].view(dtype).unflatten(1, (*lines, -1)))
            start = end
        return (*found[2:], *found[:2])
