"""What an engine takes of each GPU's memory, and what is left for its cache."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from vllm_core.commands import UsageError
from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache
from vllm_plugin_simulate.hardware import Gpu
from vllm_plugin_simulate.shapes import Shapes
from vllm_plugin_simulate.step_time import ITEM

__all__ = ["Limits", "Memory", "cache_plan", "memory_of", "splits"]

GiB = 1 << 30
BLOCK = 64  # tokens a page: what attention on GPUs prefers
GRAPHS = 40  # recorded steps of up to 256 rows
GRAPH = 6 << 20  # bytes of each
MARGIN = 1.15  # of activations: blocks of memory are rounded up


@attrs.frozen(kw_only=True)
class Limits:
    """Of the engine, as its settings of the same names."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 8192
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool = True
    async_scheduling: bool = True


@attrs.frozen(kw_only=True)
class Memory:
    """Bytes of the GPU with the least room; ``tokens`` of cache that all have room for."""

    weights: int
    beside: int  # activations, graphs and the process
    cache: int  # negative: too little for weights and what is beside them
    token_bytes: int
    tokens: int

    @property
    def bill(self) -> str:
        return (
            f"weights {self.weights / GiB:.1f} | activations, graphs and process {self.beside / GiB:.1f} | "
            f"left for KV cache {self.cache / GiB:.1f} GiB"
        )


def memory_of(shapes: Shapes, gpu: Gpu, limits: Limits, tp: int, pp: int) -> Memory:
    """Of the worst stage. ``UsageError`` with what would fit if one sequence of max_model_len does not."""
    found = _memory(shapes, gpu, limits, tp, pp)
    if found.tokens >= limits.max_model_len:
        return found
    share = f"{limits.gpu_memory_utilization:g} of it"
    text = (
        f"{shapes.name} does not fit on {tp} x {pp} {gpu.name} ({gpu.memory_mib / 1024:.1f} GiB each, {share}): "
        f"{limits.max_model_len:,} tokens of context need {limits.max_model_len * found.token_bytes / GiB:.1f} GiB.\n"
        f"  {found.bill}\n"
    )
    starts = list(_starts(shapes, gpu, limits, tp, pp, found))
    if not starts:
        raise UsageError(f"{text}  instead nothing of up to 64 GPUs makes it fit: a smaller model, or more memory")
    raise UsageError(f"{text}  Any one of these fits:\n" + "\n".join(f"    {start}" for start in starts))


def splits(shapes: Shapes, gpu: Gpu, limits: Limits, most: int = 64) -> Iterator[tuple[int, int]]:
    """(tp, pp) of up to so many GPUs on which the model fits, powers of two, fewest GPUs first."""
    sizes = [1 << i for i in range(most.bit_length())]
    for gpus in (n for n in sizes if n <= most):
        for tp in (n for n in reversed(sizes) if gpus % n == 0 and n <= gpus):
            pp = gpus // tp
            if not shapes.refuse_split(tp, pp) and _memory(shapes, gpu, limits, tp, pp).tokens >= limits.max_model_len:
                yield tp, pp


def cache_plan(shapes: Shapes, tp: int, layers: int) -> CachePlan:
    """Of a rank with so many layers, all of one kind."""
    spec = FullAttentionCache(
        num_kv_heads=shapes.kv_heads_of(tp), k_dim=shapes.head_dim, v_dim=shapes.head_dim, dtype="bfloat16"
    )
    names = tuple(f"layers.{i}" for i in range(layers))
    group = CacheGroup(index=0, spec=spec, names=names, block_size=BLOCK)
    return CachePlan(groups=(group,), page_bytes=BLOCK * spec.bytes_per_token, num_tensors=layers)


def _memory(shapes: Shapes, gpu: Gpu, limits: Limits, tp: int, pp: int) -> Memory:
    stages = shapes.stages(pp)
    beside = _activations(shapes, limits, tp, pp) + (GRAPHS * GRAPH) + (gpu.process_mib << 20)
    room = int((gpu.memory_mib << 20) * limits.gpu_memory_utilization) - beside
    found = []
    for i, layers in enumerate(stages):
        embeddings = len({i == 0 and "in", i == len(stages) - 1 and "out"} - {False})
        if pp == 1 and shapes.tied:
            embeddings = 1
        weights = ITEM * (layers * shapes.layer_parameters(tp) + embeddings * shapes.vocab_parameters(tp))
        plan = cache_plan(shapes, tp, layers)
        pages = (room - weights) // plan.bytes_per_page - 1  # one is nobody's
        found.append(
            Memory(
                weights=weights,
                beside=beside,
                cache=room - weights,
                token_bytes=plan.bytes_per_page // BLOCK,
                tokens=max(0, pages) * BLOCK,
            )
        )
    return min(found, key=lambda memory: memory.tokens)


def _activations(shapes: Shapes, limits: Limits, tp: int, pp: int) -> int:
    """Of the largest step, and of the recorded ones: as `vllm_core.runner.activations` counts."""
    qkv, out, gate_up, down = shapes.layer_products(tp)
    widest = max(2 * qkv[0] + out[1], gate_up[0] + down[1])

    def most(tokens: int) -> int:
        rows = min(limits.max_num_seqs, tokens)
        forward = tokens * ITEM * (widest + 4 * shapes.hidden)
        sampling = tokens * shapes.hidden * ITEM + rows * shapes.vocab * (ITEM + 10)
        return int(MARGIN * max(forward, sampling))

    return most(limits.max_num_batched_tokens) + most(max(512, limits.max_num_seqs))


def _starts(shapes: Shapes, gpu: Gpu, limits: Limits, tp: int, pp: int, found: Memory) -> Iterator[str]:
    if found.tokens:
        yield f"--max-model-len {found.tokens}"
    more = attrs.evolve(limits, gpu_memory_utilization=0.95)
    if limits.gpu_memory_utilization < 0.95 and _memory(shapes, gpu, more, tp, pp).tokens >= limits.max_model_len:
        yield "--gpu-memory-utilization 0.95"
    fitting = [pair for pair in splits(shapes, gpu, limits) if pair[0] * pair[1] > tp * pp]
    if fitting:
        fewest = min(a * b for a, b in fitting)
        for a, b in fitting:
            if a * b == fewest:
                yield f"--tensor-parallel-size {a} --pipeline-parallel-size {b}"
