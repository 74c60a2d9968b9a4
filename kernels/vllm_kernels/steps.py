"""The step on the device, a launch each: ``vllm_core.ops.steps``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "steps.cu"
BLOCK = 256
NAMES = ("step_inputs", "page_slots", "sampling_rows", "commit_tokens")


def variants() -> list[Variant]:
    return [Variant(file=FILE, names=NAMES)]


def step_inputs(query: OpQuery) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    kernel = Kernel(FILE, "step_inputs", "PPPPPPPPiii", dependent=True)

    def run(
        token_ids: Tensor, num_computed: Tensor, rows: Tensor, starts: Tensor, num_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sequences, room = len(rows), token_ids.shape[1]
        ids, positions, sequence = torch.empty(3, num_tokens, dtype=torch.int64, device=rows.device).unbind()
        kv_lens = torch.empty(sequences, dtype=torch.int32, device=rows.device)
        ends = (ids, positions, sequence, kv_lens)
        blocks = -(-max(num_tokens, sequences) // BLOCK)
        kernel(blocks, BLOCK, token_ids, num_computed, rows, starts, *ends, num_tokens, sequences, room)
        return ends

    return run


def page_slots(query: OpQuery) -> Callable[..., tuple[Tensor, Tensor]]:
    kernel = Kernel(FILE, "page_slots", "PPPPPPiiiiii", dependent=True)

    def run(
        table: Tensor, rows: Tensor, sequence: Tensor, positions: Tensor, block_size: int, width: int
    ) -> tuple[Tensor, Tensor]:
        tokens, sequences = len(positions), len(rows)
        block_table = torch.empty(sequences, width, dtype=torch.int32, device=rows.device)
        slots = torch.empty_like(positions)
        token_blocks, row_blocks = -(-tokens // BLOCK), -(-width // BLOCK)
        sizes = (tokens, table.shape[1], width, block_size, token_blocks, row_blocks)
        grid = token_blocks + sequences * row_blocks
        kernel(grid, BLOCK, table, rows, sequence, positions, block_table, slots, *sizes)
        return block_table, slots

    return run


def sampling_rows(query: OpQuery) -> Callable[..., tuple[Tensor, ...]]:
    kernel = Kernel(FILE, "sampling_rows", "PPPPPPPPPPPPii", dependent=True)

    def run(
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        min_p: Tensor,
        seed: Tensor,
        rows: Tensor,
        ends: Tensor,
        stream: int = 0,
    ) -> tuple[Tensor, ...]:
        lines = len(rows)
        of_each = (temperature, top_k, top_p, min_p)
        out = [torch.empty(lines, dtype=parameter.dtype, device=rows.device) for parameter in of_each]
        out.append(torch.empty(lines, dtype=torch.float64, device=rows.device))
        kernel(-(-lines // BLOCK), BLOCK, *of_each, seed, rows, ends, *out, lines, stream)
        return tuple(out)

    return run


def commit_tokens(query: OpQuery) -> Callable[..., None]:
    kernel = Kernel(FILE, "commit_tokens", "PPPPPPPPPPiiiiii", dependent=True)

    def run(
        token_ids: Tensor,
        num_tokens: Tensor,
        num_computed: Tensor,
        rows: Tensor,
        advance: Tensor,
        sampling: Tensor,
        emitted: Tensor,
        accepted: Tensor,
        result: Tensor,
        emits: Tensor | None = None,
    ) -> None:
        (lines, width), room = emitted.shape, token_ids.shape[1]
        emits_bytes = 0 if emits is None else emits.element_size()
        sizes = (emits_bytes, len(rows), lines, width, room, result.shape[1])
        state = (token_ids, num_tokens, num_computed)
        kernel(1, 1024, *state, rows, advance, sampling, emitted.contiguous(), accepted, result, emits, *sizes)

    return run
