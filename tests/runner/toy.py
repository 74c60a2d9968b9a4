"""A tiny deterministic model on the Model surface that reads its pages, and plans to drive a Runner with."""

from __future__ import annotations

import attrs
import torch

from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache
from vllm_core.interfaces.steps import PageGrowth, RowInit, RowSampling, StepPlan
from vllm_core.ops.attention import paged_attention
from vllm_core.ops.cache import write_kv
from vllm_core.runner.runner import Runner

VOCAB, HIDDEN, BLOCK = 23, 16, 4
CPU = torch.device("cpu")
DTYPE = torch.float64  # so that no comparison of tokens hangs on the rounding of a matrix product


def cache_plan(layers: int = 2, block_sizes=(BLOCK, 2)) -> CachePlan:
    """Two groups of different block sizes: even layers are in the first, odd ones in the second."""
    spec = FullAttentionCache(num_kv_heads=2, k_dim=8, v_dim=8, dtype="float64")
    groups = []
    for g, size in enumerate(block_sizes):
        names = tuple(f"layers.{i}" for i in range(g, layers, len(block_sizes)))
        groups.append(CacheGroup(index=g, spec=spec, names=names, block_size=size))
    page_bytes = max(block_sizes) * spec.bytes_per_token
    return CachePlan(groups=tuple(groups), page_bytes=page_bytes, num_tensors=max(len(g.names) for g in groups))


class ToyBackend:
    def begin_step(self, step):
        return [n for n in host_lists(step)[0] for _ in range(n)]


def host_lists(step):
    """Query lengths and bounds of cache lengths; in a static step only the device knows them."""
    if not step.static:
        return step.query_lens, step.kv_bounds
    return step.query_starts.diff().tolist(), step.kv_lens.tolist()


class ToyPlan:
    """What a Runner needs of ``runner.plan.EnginePlan``."""

    def __init__(self, device: torch.device = CPU):
        self.torch_device = device

    def bind_caches(self, caches, tensors):
        self.caches, self.tensors = caches, tensors
        return [ToyBackend() for _ in caches.groups]

    def pages(self, layer: int):
        group = self.caches.groups[layer % len(self.caches.groups)]
        tensor = self.tensors[layer // len(self.caches.groups)]
        size = group.block_size * 2 * 8
        typed = tensor.view(torch.float64)
        shape = (len(tensor), group.block_size, 2, 8)
        return group.index, typed[:, :size].view(shape), typed[:, size : 2 * size].view(shape)


class ToyStack:
    def __init__(self, model):
        self.model, self.taps = model, ()

    def tap(self, layers):
        self.taps = tuple(layers)


class ToyModel:
    """Attention and a residual connection in each layer; positions enter through sines."""

    vocab_size = VOCAB
    weights: list = []

    def __init__(self, plan: ToyPlan, layers: int = 2, seed: int = 0):
        make = torch.Generator().manual_seed(seed)

        def random(*shape):
            return (torch.randn(*shape, generator=make, dtype=DTYPE) / shape[-1] ** 0.5).to(plan.torch_device)

        self.plan = plan
        self.table = random(VOCAB, HIDDEN) * HIDDEN**0.5
        self.qkv = [random(3 * HIDDEN, HIDDEN) * 2 for _ in range(layers)]
        self.head = random(VOCAB, HIDDEN)
        self.layers = ToyStack(self)

    def embed(self, ids, batch):
        angles = batch.positions[:, None] / torch.arange(1, HIDDEN + 1, dtype=DTYPE, device=ids.device)
        return self.table[ids] + 0.5 * torch.sin(angles)

    def forward(self, x, batch):
        for i, weight in enumerate(self.qkv):
            if i in self.layers.taps:
                batch.taps[i] = x
            group, k_pages, v_pages = self.plan.pages(i)
            step = batch.attention[group]
            assert len(batch.metadata[group]) == len(x)  # made once, for this step
            q, k, v = (x @ weight.T).view(len(x), 3, 2, 8).unbind(1)
            write_kv(k, v, k_pages, v_pages, step.slots)
            lengths, bounds = host_lists(step)
            seen = paged_attention(q, k_pages, v_pages, step.block_table, lengths, step.kv_lens, bounds, scale=0.5)
            x = x + seen.reshape(len(x), HIDDEN)
        return x

    def logits(self, hidden):
        return hidden @ self.head.T

    def whole(self, ids: list[int]) -> torch.Tensor:
        """Logits [T, V] of one sequence without pages or batches: the reference."""
        positions = torch.arange(len(ids))
        x = self.table[torch.tensor(ids)]
        x = x + 0.5 * torch.sin(positions[:, None] / torch.arange(1, HIDDEN + 1, dtype=DTYPE))
        for weight in self.qkv:
            q, k, v = (x @ weight.T).view(len(x), 3, 2, 8).permute(1, 2, 0, 3)
            scores = (q @ k.mT * 0.5).masked_fill(positions[:, None] < positions, float("-inf"))
            x = x + (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(x), HIDDEN)
        return self.logits(x)


def make_runner(
    proposer=None, num_drafts=0, max_rows=8, max_model_len=64, num_pages=400, seed=0, device=CPU, **more
) -> Runner:
    plan, caches = ToyPlan(device), cache_plan()
    model = ToyModel(plan, seed=seed)
    return Runner(model, plan, caches, num_pages, max_rows, max_model_len, proposer, num_drafts, **more)


@attrs.define
class Request:
    row: int
    ids: list[int]
    sampling: RowSampling = attrs.field(factory=lambda: RowSampling(temperature=0.0))
    computed: int = 0
    prompt: int = 0

    def __attrs_post_init__(self):
        self.prompt = len(self.ids)


class Driver:
    """The host's side in its plainest form: it waits for every step and gives out pages in order."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self.step = 0
        self.next_page = 1
        self.tables: dict[int, list[list[int]]] = {}

    def take(self, count: int) -> list[int]:
        first = self.next_page
        self.next_page += count
        assert self.next_page <= self.runner.num_pages
        return list(range(first, first + count))

    def plan(self, inits, work) -> StepPlan:
        """``work``: (request, tokens, drafts, samples) of each scheduled row."""
        new, growths = [], []
        sizes = [g.block_size for g in self.runner.caches.groups]
        for request in inits:
            self.tables[request.row] = [[] for _ in sizes]
        for request, tokens, _, _ in work:
            for group, size in enumerate(sizes):
                table = self.tables[request.row][group]
                lacking = -(-(request.computed + tokens) // size) - len(table)
                if lacking > 0:
                    pages = self.take(lacking)
                    growths.append(PageGrowth(row=request.row, group=group, first_block=len(table), pages=pages))
                    table += pages
        for request in inits:
            mine = [g for g in growths if g.row == request.row]
            growths = [g for g in growths if g.row != request.row]
            pages = [[p for g in mine if g.group == i for p in g.pages] for i in range(len(sizes))]
            new.append(
                RowInit(
                    row=request.row,
                    token_ids=list(request.ids),
                    num_computed=request.computed,
                    pages=pages,
                    sampling=request.sampling,
                    num_prompt=request.prompt,
                )
            )
        self.step += 1
        return StepPlan(
            step=self.step,
            inits=new,
            growths=growths,
            copies=[],
            rows=[r.row for r, *_ in work],
            num_tokens=[n for _, n, *_ in work],
            num_drafts=[k for _, _, k, _ in work],
            samples=[s for *_, s in work],
            kv_bounds=[r.computed + n for r, n, *_ in work],
        )

    def run(self, inits, work) -> list[list[int]]:
        """Execute and take in the result: what each scheduled row emitted."""
        result = self.runner.execute(self.plan(inits, work)).token_ids.tolist()
        emitted = [[t for t in row if t >= 0] for row in result]
        for (request, tokens, drafts, samples), new in zip(work, emitted, strict=True):
            assert bool(new) == samples
            request.computed += tokens - drafts + max(0, len(new) - 1)
            request.ids += new
        return emitted

    def generate(self, requests: list[Request], tokens: int, chunk: int = 1000) -> list[list[int]]:
        """All requests together until each has ``tokens`` outputs; what each one's outputs are."""
        inits = requests
        drafts = self.runner.num_drafts
        while active := [r for r in requests if len(r.ids) - r.prompt < tokens]:
            work = []
            for r in active:
                left = len(r.ids) - r.computed
                decoding = left == 1 and len(r.ids) > r.prompt
                if decoding:
                    work.append((r, 1 + drafts, drafts, True))
                else:
                    work.append((r, min(chunk, left), 0, chunk >= left))
            self.run(inits, work)
            inits = []
        return [r.ids[r.prompt : r.prompt + tokens] for r in requests]
