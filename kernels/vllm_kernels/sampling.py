"""Tokens from logits on the device, in one or two launches a step, whatever its lines ask for. Nothing is sorted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery, SamplerQuery
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "sampling.cu"
KINDS = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}  # as cuda/lines.cuh
TILE, WARPS, THREADS = 1024, 16, 512
MOST_LINES = 1 << 14  # a launch
MOST_TILES = 2048  # of a line: 16 bytes of shared memory each


def variants() -> list[Variant]:
    # So that two blocks fit on a multiprocessor, ``sample`` keeps a few numbers outside its loop in local memory.
    return [Variant(file=FILE, names=("sample", "sample_truncated", "probabilities"), spills=64)]


class Sampler:
    """`interfaces.sampler.Sampler`. Each line's parameters are read on the device: of what the host knows only that
    nobody is random, or nobody cut, leaves anything out."""

    def __init__(self, query: SamplerQuery) -> None:
        self._draw = Draw()
        self._probabilities = Kernel(FILE, "probabilities", "PliiPPPP", dependent=True)

    def __call__(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        return self._draw(logits, params)

    def probs(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        logits = rows_of(logits)
        (lines, vocab), device = logits.shape, logits.device
        facts = torch.empty(lines, 4, dtype=torch.float32, device=device)
        tokens = self._draw(logits, params, facts)
        out = torch.empty(lines, vocab, dtype=torch.float32, device=device)
        blocks = min(-(-vocab // 1024), max(1, 1024 // max(lines, 1)))
        of_logits = (logits, logits.stride(0), KINDS[logits.dtype], vocab)
        self._probabilities((blocks, lines), 256, *of_logits, params.temperature, facts, tokens, out)
        return out


def argmax(query: OpQuery) -> Callable[[Tensor], Tensor]:
    return Draw()


class Draw:
    """The kernels that draw, ready for logits of any float dtype."""

    def __init__(self) -> None:
        self._sample = Kernel(FILE, "sample", "PliiiPPPPPPPPP", shared=16 * MOST_TILES, dependent=True)
        self._truncated = Kernel(FILE, "sample_truncated", "PliiiPPPPPPPP", shared=16 * MOST_TILES + 4, dependent=True)
        self._arrived, self._blocks = counters()

    def __call__(self, logits: Tensor, params: SamplingTensors | None = None, facts: Tensor | None = None) -> Tensor:
        """int64 [N]. Without ``params`` all lines are greedy. ``facts``: float32 [N, 4], filled (see the kernel)."""
        logits = rows_of(logits)
        (lines, vocab), device = logits.shape, logits.device
        tiles = -(-vocab // TILE)
        if lines > MOST_LINES or tiles > MOST_TILES:
            raise ValueError(
                f"logits [{lines:,}, {vocab:,}] are more than the {MOST_LINES:,} lines of {MOST_TILES * TILE:,} that "
                "these kernels draw from; the core's own sampler has no limit"
            )
        tokens = torch.empty(lines, dtype=torch.int64, device=device)
        stats = torch.empty(lines, tiles, 2, dtype=torch.float32, device=device)
        blocks = max(1, min(-(-tiles // WARPS), self._blocks // max(lines, 1)))
        of_logits = (logits, logits.stride(0), KINDS[logits.dtype], vocab, tiles)
        asked: tuple[Tensor | None, ...] = (None,) * 5
        cut = False
        if params is not None and params.any_random:
            asked = (params.temperature, params.top_k, params.top_p, params.min_p, params.noise)
            cut = params.largest_top_k > 0 or params.any_top_p or params.any_min_p
        given = (*of_logits, *asked, stats)
        self._sample((blocks, lines), THREADS, *given, self._arrived, tokens, facts, shared=16 * tiles)
        if cut:
            self._truncated((1, lines), THREADS, *given, tokens, facts, shared=16 * tiles + 4)
        return tokens


def counters() -> tuple[Tensor, int]:
    """Zeros, by which a line's last block knows that it is; and how many blocks should share all lines: two for each
    multiprocessor. With more lines than that, a warp reads several tiles."""
    device = torch.device("cuda", torch.cuda.current_device())
    zeros = torch.zeros(MOST_LINES, dtype=torch.int32, device=device)
    return zeros, 2 * torch.cuda.get_device_properties(device).multi_processor_count


def rows_of(logits: Tensor) -> Tensor:
    """Each line in consecutive memory; the lines at any stride."""
    return logits if logits.stride(1) == 1 else logits.contiguous()
