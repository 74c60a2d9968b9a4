"""A backend with pages of its own: sequences grow step by step, and every result is compared with the oracle."""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.interfaces.cache import FullAttentionCache, SlidingWindowCache
from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.interfaces.steps import NULL_PAGE
from vllm_core.plugin import load_target
from vllm_core.testing.attention_asked import AskedBackend, block_size_of, layouts_of
from vllm_core.testing.attention_oracle import attention

LAYERS = 2  # that share a step's metadata and have pages of their own
TOKENS = 640  # that the pages hold
SLACK = 3  # tokens by which the host's bounds lie above lengths, as after rejected drafts
SHARPNESS = 3.0  # standard deviation of scores: attention must pick, or mistakes do not show
PADDING = 64  # bytes at the end of each page that are not the group's
POISON = 0xFF  # bytes of it are NaN in every float format


@attrs.define(eq=False)
class Tokens:
    """A sequence: what was written, and where."""

    keys: list[Tensor]  # [L, KV, k_dim] of each layer
    values: list[Tensor]
    pages: list[int] = attrs.field(factory=list)

    @property
    def length(self) -> int:
        return len(self.keys[0])


@attrs.define(eq=False)
class Layer:
    """One layer's side of a step."""

    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor | None
    want: Tensor  # float64 [T, H, v_dim]
    want_lse: Tensor  # float64 [T, H]


class Trial:
    """A backend made from its plugin's offer for ``query``.

    stale   what lies in pages beyond lengths are old keys and values instead of NaN; ``tokens`` that the pages hold
    """

    def __init__(
        self,
        asked: AskedBackend,
        query: AttentionQuery,
        *,
        block_size: int | None = None,
        layout: str | None = None,
        stale: bool = False,
        seed: int = 0,
        tokens: int = TOKENS,
    ) -> None:
        self.query, self.device, self.stale = query, asked.torch_device, stale
        offer = asked.offer(query)
        self.lse = "lse" in offer.capabilities
        self.block, self.layout = block_size or block_size_of(offer, 16), layout or layouts_of(offer)[0]
        self.dtype = getattr(torch, query.dtype)
        self.random = torch.Generator().manual_seed(seed)
        self.config = AttentionConfig(
            **{name: getattr(query, name) for name in ("num_heads", "num_kv_heads", "k_dim", "v_dim", "causal")},
            **{name: getattr(query, name) for name in ("window", "soft_cap", "sinks")},
            scale=SHARPNESS * query.k_dim**-0.5,
            dtype=self.dtype,
            kv_dtype=self.dtype,
            device=self.device,
            block_size=self.block,
            page_layout=self.layout,
            options=offer.options,
        )
        self.backend = load_target(offer.target)(self.config)
        sizes = {"num_kv_heads": query.num_kv_heads, "k_dim": query.k_dim, "v_dim": query.v_dim}
        self.spec: FullAttentionCache = FullAttentionCache(**sizes, dtype=query.kv_dtype)
        if query.window is not None:
            self.spec = SlidingWindowCache(**sizes, dtype=query.kv_dtype, window=query.window)
        views = asked.views(self.layout, query)
        num_pages = -(-tokens // self.block) + 24
        shape = (num_pages, views.page_bytes(self.spec, self.block) + PADDING)
        self.raw = [torch.empty(shape, dtype=torch.uint8, device=self.device) for _ in range(LAYERS)]
        self.spoil(list(range(num_pages)))
        self.pages = [views.views(raw, self.spec, self.block) for raw in self.raw]
        self.sinks = [2 * self.normal(query.num_heads) if query.sinks else None for _ in range(LAYERS)]
        self.free = list(range(1, num_pages))
        random.Random(seed).shuffle(self.free)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random).to(self.device, self.dtype)

    def spoil(self, pages: list[int]) -> None:
        """These pages hold nothing that anybody may use."""
        for raw in self.raw:
            if self.stale:
                count = raw.shape[1] * len(pages) // self.dtype.itemsize
                raw[pages] = (10 * self.normal(count)).view(torch.uint8).view(len(pages), -1)
            else:
                raw[pages] = POISON

    def sequence(self) -> Tokens:
        q = self.query
        return Tokens(
            [torch.empty(0, q.num_kv_heads, q.k_dim, dtype=self.dtype, device=self.device) for _ in range(LAYERS)],
            [torch.empty(0, q.num_kv_heads, q.v_dim, dtype=self.dtype, device=self.device) for _ in range(LAYERS)],
        )

    def batch(self, lengths: Sequence[tuple[int, int]]) -> list[tuple[Tokens, int]]:
        """Sequences with so many tokens cached, which the backend has written, and so many to come."""
        work = [(self.sequence(), queries) for _, queries in lengths]
        history = [(s, before) for (s, _), (before, _) in zip(work, lengths, strict=True) if before]
        if history:
            step, layers = self.prepare(history)
            for layer, pages in zip(layers, self.pages, strict=True):
                self.backend.write(layer.k, layer.v, pages, step)
        self.advance([s for s, _ in work])
        return work

    def prepare(self, work: Sequence[tuple[Tokens, int]]) -> tuple[AttentionStep, list[Layer]]:
        """A step that appends random tokens to sequences, and what each layer should answer."""
        lens = [queries for _, queries in work]
        layers = [self._layer(work, number, sum(lens)) for number in range(LAYERS)]
        kv_lens = [s.length for s, _ in work]
        bounds = [n + (SLACK if queries < n else 0) for n, (_, queries) in zip(kv_lens, work, strict=True)]
        slots: list[int] = []
        for (s, queries), length, bound in zip(work, kv_lens, bounds, strict=True):
            while len(s.pages) * self.block < bound:
                s.pages.append(self.free.pop())
            slots += [s.pages[p // self.block] * self.block + p % self.block for p in range(length - queries, length)]
        width = 1 + max((len(s.pages) for s, _ in work), default=0)
        table = [s.pages + [NULL_PAGE] * (width - len(s.pages)) for s, _ in work]
        starts = torch.tensor([0, *lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        step = AttentionStep(
            num_tokens=sum(lens),
            query_lens=lens,
            kv_bounds=bounds,
            query_starts=starts.to(self.device),
            kv_lens=torch.tensor(kv_lens, dtype=torch.int32, device=self.device),
            block_table=torch.tensor(table, dtype=torch.int32, device=self.device).view(len(table), width),
            slots=torch.tensor(slots, dtype=torch.int64, device=self.device),
        )
        return step, layers

    def _layer(self, work: Sequence[tuple[Tokens, int]], number: int, total: int) -> Layer:
        c = self.config
        if c.k_dim == c.v_dim:  # at the strides of one fused projection
            fused = self.normal(total, c.num_heads + 2 * c.num_kv_heads, c.k_dim)
            q, k, v = fused.split((c.num_heads, c.num_kv_heads, c.num_kv_heads), dim=1)
        else:
            q, k = self.normal(total, c.num_heads, c.k_dim), self.normal(total, c.num_kv_heads, c.k_dim)
            v = self.normal(total, c.num_kv_heads, c.v_dim)
        sinks = self.sinks[number]
        wants, lses, start = [q.new_empty(0, c.num_heads, c.v_dim).double()], [q.new_empty(0, c.num_heads).double()], 0
        for s, queries in work:
            stop = start + queries
            s.keys[number] = torch.cat((s.keys[number], k[start:stop]))
            s.values[number] = torch.cat((s.values[number], v[start:stop]))
            want, lse = attention(
                q[start:stop],
                s.keys[number],
                s.values[number],
                scale=c.scale,
                causal=c.causal,
                window=c.window,
                soft_cap=c.soft_cap,
                sinks=sinks,
            )
            wants.append(want)
            lses.append(lse)
            start = stop
        return Layer(q, k, v, sinks, torch.cat(wants), torch.cat(lses))

    def advance(self, sequences: Sequence[Tokens]) -> None:
        """Give up the blocks that windows have passed, as the engine's cache manager does."""
        if self.config.window is None:
            return
        for s in sequences:
            passed = max(0, s.length - self.config.window + 1) // self.block
            gone = [page for page in s.pages[:passed] if page != NULL_PAGE]
            s.pages[:passed] = [NULL_PAGE] * passed
            self._release(gone)

    def branch(self, sequence: Tokens, length: int) -> Tokens:
        """Another sequence that begins with the same ``length`` tokens, in the same pages; a multiple of a page's."""
        keys, values = ([x[:length].clone() for x in kept] for kept in (sequence.keys, sequence.values))
        return Tokens(keys, values, sequence.pages[: length // self.block])

    def finish(self, sequence: Tokens) -> None:
        self._release([page for page in sequence.pages if page != NULL_PAGE])
        sequence.pages.clear()

    def _release(self, pages: list[int]) -> None:
        if pages:
            self.spoil(pages)
            self.free += pages

    @torch.inference_mode()
    def play(self, work: Sequence[tuple[Tokens, int]], what: str, tolerance: float, *, lse: bool = False) -> None:
        """One step as a runner makes it; every layer's result, or its log-sum-exp, agrees with the oracle."""
        __tracebackhide__ = True
        step, layers = self.prepare(work)
        metadata = self.backend.begin_step(step)
        for number, (layer, pages) in enumerate(zip(layers, self.pages, strict=True)):
            self.backend.write(layer.k, layer.v, pages, step)
            where = f"{what}, layer {number}"
            if not lse:
                got = self.backend.attend(layer.q, pages, step, metadata, layer.sinks)
                assert got.dtype == self.dtype, f"{where}: the result is {got.dtype}, the queries are {self.dtype}"
                agree(got, layer.want, tolerance, step, where)
                continue
            totals = torch.full(layer.want_lse.shape, torch.nan, dtype=torch.float32, device=self.device)
            got = self.backend.attend(layer.q, pages, step, metadata, layer.sinks, lse=totals)
            agree(got, layer.want, tolerance, step, f"{where}, with log-sum-exp asked for")
            agree(totals, layer.want_lse, tolerance, step, f"{where}: log-sum-exp")
        self.advance([s for s, _ in work])


def agree(got: Tensor, want: Tensor, tolerance: float, step: AttentionStep, what: str) -> None:
    """Largest |difference| over the largest |value| of ``want``; what is wrong is named by sequence, query and head."""
    __tracebackhide__ = True
    assert got.shape == want.shape, f"{what}: the shape is {list(got.shape)}, should be {list(want.shape)}"
    if not want.numel():
        return
    far = (got.double() - want).abs().nan_to_num(nan=torch.inf) / want.abs().max().clamp(min=1e-3)
    far = far.flatten(2).amax(-1) if far.dim() == 3 else far  # [T, H]
    if far.max() <= tolerance:
        return
    bad = (far > tolerance).nonzero()
    token, head = divmod(int(far.argmax()), far.shape[1])
    lens, starts = step.kv_lens.tolist(), step.query_starts.tolist()
    row = max(i for i, start in enumerate(starts[:-1]) if start <= token and step.query_lens[i])
    size = "not finite (something that was never written was used)" if far.max() == torch.inf else f"{far.max():.1e}"
    raise AssertionError(
        f"{what}: off by {size} of the largest value, allowed are {tolerance:.0e}; wrong are {len(bad)} of"
        f" {far.numel()} (query, head) pairs\n  worst   query {token - starts[row]} of {step.query_lens[row]}, head"
        f" {head}, in sequence {row} of {len(lens)}, which has {lens[row]} tokens"
    )
