"""Tokens from logits on the device: a launch a step, whatever its lines ask for. No sort, no host facts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery, SamplerQuery
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "sampling.cu"
TYPES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "float"}
TILE, WARPS, THREADS = 1024, 16, 512  # as cuda/lines.cuh
MOST_LINES = 1 << 14  # a launch
MOST_TILES = 2048  # of a line: 16 bytes of shared memory each
SIGNATURE = "PliiPPPPPPPPP"


def variants() -> list[Variant]:
    # A few bytes are spilled around the loops of truncate.cuh, so that two blocks fit on a multiprocessor.
    return [
        Variant(file=FILE, defines={"LOGIT": name}, names=("sample", "probabilities"), spills=64)
        for name in TYPES.values()
    ]


class Sampler:
    """`interfaces.sampler.Sampler`. One captured call serves greedy, random and truncated lines: the device looks."""

    def __init__(self, query: SamplerQuery) -> None:
        self._lines = {dtype: Lines(dtype) for dtype in TYPES}
        self._probabilities = {
            dtype: Kernel(FILE, "probabilities", "PliPPPP", {"LOGIT": name}, dependent=True)
            for dtype, name in TYPES.items()
        }

    def __call__(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        return self._lines[logits.dtype](logits, params)

    def probs(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        facts = torch.empty(len(logits), 4, dtype=torch.float32, device=logits.device)
        tokens = self._lines[logits.dtype](logits, params, facts)
        logits = _rows(logits)
        (lines, vocab), kernel = logits.shape, self._probabilities[logits.dtype]
        out = torch.empty(lines, vocab, dtype=torch.float32, device=logits.device)
        blocks = min(-(-vocab // 1024), max(1, 1024 // max(lines, 1)))
        kernel((blocks, lines), 256, logits, logits.stride(0), vocab, params.temperature, facts, tokens, out)
        return out


def argmax(query: OpQuery) -> Callable[[Tensor], Tensor]:
    """The op, for the query's dtype and float32, which changed logits have."""
    dtypes = {getattr(torch, query.dtype), torch.float32}
    lines = {dtype: Lines(dtype) for dtype in dtypes if dtype in TYPES}

    def run(logits: Tensor) -> Tensor:
        return lines[logits.dtype](logits)

    return run


class Lines:
    """The kernel for logits of one dtype, and the counters that tell a line's last block."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._kernel = Kernel(
            FILE, "sample", SIGNATURE, {"LOGIT": TYPES[dtype]}, shared=16 * MOST_TILES, dependent=True
        )
        device = torch.device("cuda", torch.cuda.current_device())
        self._arrived = torch.zeros(MOST_LINES, dtype=torch.int32, device=device)
        # Two blocks a multiprocessor: with more lines than that, a block reads several tiles a warp.
        self._blocks = 2 * torch.cuda.get_device_properties(device).multi_processor_count

    def __call__(self, logits: Tensor, params: SamplingTensors | None = None, facts: Tensor | None = None) -> Tensor:
        """int64 [N]. Without ``params`` all lines are greedy. ``facts``: float32 [N, 4], filled (see the kernel)."""
        logits = _rows(logits)
        lines, vocab = logits.shape
        if lines > MOST_LINES:
            raise ValueError(f"{lines:,} lines of logits are more than the {MOST_LINES:,} that one launch draws from")
        tiles = -(-vocab // TILE)
        tokens = torch.empty(lines, dtype=torch.int64, device=logits.device)
        stats = torch.empty(lines, tiles, 2, dtype=torch.float32, device=logits.device)
        blocks = max(1, min(-(-tiles // WARPS), self._blocks // max(lines, 1)))
        of_lines = (None,) * 5
        if params is not None:
            of_lines = (params.temperature, params.top_k, params.top_p, params.min_p, params.noise)
        work = (stats, self._arrived, tokens, facts)
        self._kernel(
            (blocks, lines), THREADS, logits, logits.stride(0), vocab, tiles, *of_lines, *work, shared=16 * tiles
        )
        return tokens


def _rows(logits: Tensor) -> Tensor:
    """Each line in consecutive memory; the lines at any stride."""
    return logits if logits.stride(1) == 1 else logits.contiguous()
