"""How long an attention backend takes for a layer, in two steps that stand for serving."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.interfaces.cache import FullAttentionCache, SlidingWindowCache
from vllm_core.interfaces.queries import AttentionQuery, CacheLayoutQuery
from vllm_core.layers.page_layouts import LAYOUTS, HeadLayout
from vllm_core.plugin import Offer, load_target
from vllm_core.runner.paged import IN_GRAPHS

BLOCK = 16  # tokens a page, where the backend takes that
LAYERS = 16  # that share what is prepared once a step
DECODE = [(1023, 1)] * 32  # (tokens cached before, query tokens)
PROMPTS = [(0, 1024)] * 8
DECODES, PROMPT_STEPS = 256, 4  # of each in `Times.seconds`


@attrs.frozen
class Times:
    """Seconds a layer."""

    decode: float
    prompts: float

    @property
    def seconds(self) -> float:
        return DECODES * self.decode + PROMPT_STEPS * self.prompts

    @property
    def milliseconds(self) -> dict[str, float]:
        return {"decode": 1e3 * self.decode, "prompts": 1e3 * self.prompts, "together": 1e3 * self.seconds}

    @property
    def line(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.milliseconds.items()) + " ms"


@torch.inference_mode()
def measure(offer: Offer, query: AttentionQuery, device: torch.device, selector: Any, repeat: int) -> Times:
    """Make the offer's backend with pages of its own, and run it ``repeat`` times in each step."""
    layout = offer.takes.get("kv.page_layout", LAYOUTS[:1])[0]
    block = min(offer.options.get("block_sizes") or (BLOCK,), key=lambda size: abs(size - BLOCK))
    dtype, kv_dtype = getattr(torch, query.dtype), getattr(torch, query.kv_dtype)
    settings = ("num_heads", "num_kv_heads", "k_dim", "v_dim", "causal", "window", "soft_cap", "sinks")
    config = AttentionConfig(
        **{name: getattr(query, name) for name in settings}, scale=query.k_dim**-0.5, dtype=dtype, kv_dtype=kv_dtype,
        device=device, block_size=block, page_layout=layout, options=offer.options,
    )  # fmt: skip
    backend = load_target(offer.target)(config)
    sizes: dict[str, Any] = {"num_kv_heads": query.num_kv_heads, "k_dim": query.k_dim, "v_dim": query.v_dim}
    spec: FullAttentionCache = FullAttentionCache(**sizes, dtype=query.kv_dtype)
    if query.window is not None:
        spec = SlidingWindowCache(**sizes, dtype=query.kv_dtype, window=query.window)
    if layout in LAYOUTS:
        views: Any = HeadLayout(layout)
    else:
        asked = CacheLayoutQuery(kind=query.kind, layout=layout, dtype=query.kv_dtype, device=query.device)
        views = selector.choose("kv_cache_layout", asked).load()(layout)
    pages = 1 + max(sum(-(-(a + n) // block) for a, n in rows) for rows in (DECODE, PROMPTS))
    raw = torch.zeros(pages, views.page_bytes(spec, block), dtype=torch.uint8, device=device)
    stored = views.views(raw, spec, block)
    sinks = torch.zeros(query.num_heads, dtype=dtype, device=device) if query.sinks else None

    def run(step: AttentionStep, q: Tensor) -> None:
        metadata = backend.begin_step(step)
        for _ in range(LAYERS):
            backend.attend(q, stored, step, metadata, sinks)

    captured = device.type == "cuda" and offer.capabilities >= IN_GRAPHS
    found = []
    for rows, static in ((DECODE, captured), (PROMPTS, False)):
        step = make_step(rows, block, device, static)
        q = torch.randn(step.num_tokens, query.num_heads, query.k_dim, device=device).to(dtype)
        found.append(_seconds(lambda step=step, q=q: run(step, q), static, device, repeat) / LAYERS)  # type: ignore[misc]
    return Times(*found)


def make_step(rows: Sequence[tuple[int, int]], block: int, device: torch.device, static: bool) -> AttentionStep:
    """A step of (tokens cached before, query tokens) over pages in no order."""
    lengths, counts = [a + n for a, n in rows], [n for _, n in rows]
    need = [-(-length // block) for length in lengths]
    free = iter((torch.randperm(sum(need), generator=torch.Generator().manual_seed(0)) + 1).tolist())
    used = [[next(free) if column < count else 0 for column in range(max(need))] for count in need]
    slots = [
        used[row][p // block] * block + p % block
        for row, (length, n) in enumerate(zip(lengths, counts, strict=True))
        for p in range(length - n, length)
    ]
    starts = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return AttentionStep(
        num_tokens=sum(counts), query_lens=() if static else counts, kv_bounds=() if static else lengths,
        query_starts=starts.to(device), kv_lens=torch.tensor(lengths, dtype=torch.int32, device=device),
        block_table=torch.tensor(used, dtype=torch.int32, device=device), slots=torch.tensor(slots, device=device),
        longest_query=max(counts), longest_kv=max(lengths), static=static,
    )  # fmt: skip


def _seconds(run: Callable[[], None], captured: bool, device: torch.device, repeat: int) -> float:
    """The median of runs, from the call until the device is done; the first one is not counted."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    run()
    wait()
    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        run = graph.replay
    found = []
    for _ in range(repeat):
        begin = time.perf_counter()
        run()
        wait()
        found.append(time.perf_counter() - begin)
    return sorted(found)[repeat // 2]
