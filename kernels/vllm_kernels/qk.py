"""From the product with W_qkv to attention's input in one launch: norms of heads, rotary, keys and values to pages."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.cache import lies_well
from vllm_kernels.dtypes import CUDA_NAMES, KV_NAMES
from vllm_kernels.heads import head_width
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE, NAME = "qk.cu", "qk_norm_rope_write"
SIGNATURE = "PPPPPPPPPPiiiiiiiffllllll"
THREADS = 256
LAYOUTS = ("NHD", "HND")  # of pages


class QKWrite:
    """``write(qkv, cos, sin, positions, k_pages, v_pages, slots, layout) -> q``.

    norm   "": queries and keys as they are; else the dtype of their weights
    """

    def __init__(
        self,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dtype: str,
        kv_dtype: str,
        rotary_dim: int = 0,
        interleaved: bool = False,
        q_weight: Tensor | None = None,
        k_weight: Tensor | None = None,
        eps: float = 0.0,
        k_eps: float | None = None,
    ) -> None:
        self._heads, self._kv_heads, self._head_dim = heads, kv_heads, head_dim
        self._q_weight, self._k_weight = q_weight, k_weight
        self._eps = eps, eps if k_eps is None else k_eps
        norm = "" if q_weight is None else str(q_weight.dtype).removeprefix("torch.")
        variant = variant_of(dtype, kv_dtype, norm, head_width(head_dim, rotary_dim, interleaved), bool(interleaved))
        self._kernel = Kernel(FILE, NAME, SIGNATURE, variant.defines, dependent=True)
        self._half = rotary_dim // 2
        self._elements = int(variant.defines["WIDTH"])
        self._shift = (head_dim // self._elements - 1).bit_length()  # threads a head: 1 << shift
        self._blocks = -(-((heads + 2 * kv_heads) << self._shift) // THREADS)

    @classmethod
    def of_layer(cls, query: OpQuery, layer: Any) -> QKWrite:
        """For a bound ``DecoderAttention``; equal layers differ in their weights only."""
        table = layer.rotary.table if layer.rotary is not None else None
        return cls(
            heads=layer.heads,
            kv_heads=layer.kv_heads,
            head_dim=layer.head_dim,
            dtype=query.dtype,
            kv_dtype=str(query.shape["kv_dtype"]),
            rotary_dim=table.rotary_dim if table is not None else 0,
            interleaved=table is not None and table.interleaved,
            q_weight=norm_weight(layer.q_norm),
            k_weight=norm_weight(layer.k_norm),
            eps=layer.q_norm.eps if layer.q_norm is not None else 0.0,
            k_eps=layer.k_norm.eps if layer.k_norm is not None else 0.0,
        )

    def fits(self, pages: tuple[Tensor, ...], layout: str) -> bool:
        """Whether it can write these pages: call once, when they are new."""
        return layout in LAYOUTS and len(pages) == 2 and all(lies_well(one, self._elements) for one in pages)

    def __call__(
        self,
        qkv: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        positions: Tensor | None,
        k_pages: Tensor,
        v_pages: Tensor,
        slots: Tensor,
        layout: str,
    ) -> Tensor:
        """qkv [T, (H + 2 KV) D], unchanged -> q [T, H, D], contiguous; keys and values are in their pages.

        cos, sin   float32 [rows, R / 2]; token t reads row ``positions[t]`` (int64), or t if that is None
        pages      [P, B, KV, D] ("NHD") or [P, KV, B, D] ("HND")
        slots      int64 [T]
        """
        tokens, heads = qkv.shape[0], self._heads
        q = qkv.new_empty(tokens, heads, self._head_dim)
        page, token, head = (0, 1, 2) if layout == "NHD" else (0, 2, 1)
        k, v = k_pages.stride(), v_pages.stride()
        self._kernel(
            (tokens, self._blocks), THREADS,
            qkv, q, self._q_weight, self._k_weight, cos, sin, positions, k_pages, v_pages, slots,
            tokens, heads, self._kv_heads, self._head_dim, self._half, k_pages.shape[token], self._shift,
            *self._eps, k[page], k[token], k[head], v[page], v[token], v[head],
        )  # fmt: skip
        return q


def norm_weight(norm: Any) -> Tensor | None:
    """What a layer of norms multiplies by: its weight, or 1 + weight in float32 where that is kept."""
    if norm is None:
        return None
    scale = getattr(norm, "scale", None)
    return norm.weight if scale is None else scale


def variant_of(dtype: str, kv_dtype: str, norm: str, elements: int, interleaved: bool) -> Variant:
    defines = {
        "TYPE": CUDA_NAMES[dtype],
        "KV_TYPE": KV_NAMES[kv_dtype],
        "WIDTH": elements,
        "INTERLEAVED": int(interleaved),
    }
    if norm:
        defines["W_TYPE"] = CUDA_NAMES[norm]
    return Variant(file=FILE, defines=defines, names=(NAME,))


def variants() -> list[Variant]:
    found = []
    for dtype in ("bfloat16", "float16", "float32"):
        for kv_dtype in (dtype, "float8_e4m3fn"):
            for norm in dict.fromkeys(("", dtype, "float32")):
                found += [variant_of(dtype, kv_dtype, norm, e, pairs) for e in (8, 4, 2) for pairs in (False, True)]
    return found
