"""The op ``linear`` on a GPU, with results that do not depend on the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_plugin_triton_linear.kernels import GROUP, add_kernel, part_kernel, whole_kernel

BUSY = 132  # programs that keep a large GPU busy; fixed, so that segments are the same on every device
PROGRAMS = 2 * BUSY  # that one row should be cut into, so that all of the memory's bandwidth is used
COLUMNS = 1024  # of a program that adds segments


@attrs.frozen
class Tile:
    """What one program computes. Fixed for a weight; nothing here may depend on the number of rows."""

    rows: int
    columns: int
    inner: int  # elements of K in a step
    warps: int
    stages: int
    segments: int
    steps: int  # of inner elements in a segment
    even: bool  # whether segments are K exactly


def tile_of(dtype: torch.dtype, in_size: int, out_size: int) -> Tile:
    """Segments are as many as one row needs for all of a GPU to read the weight, each of 256 elements at least."""
    if dtype == torch.float32:
        rows, columns, inner, warps, stages = 32, 64, 32, 4, 3
    elif in_size % 64:  # loads are masked, which takes registers
        rows, columns, inner, warps, stages = 32, 64, 32, 4, 2
    else:
        rows, columns, inner, warps, stages = 64, 128, 64, 4, 4
    steps = -(-in_size // inner)
    most = min(-(-PROGRAMS // -(-out_size // columns)), max(1, in_size // 256), 8)
    segments = max(n for n in range(1, most + 1) if steps % n == 0)
    return Tile(rows, columns, inner, warps, stages, segments, steps // segments, in_size % inner == 0)


class InvariantLinear:
    """``__call__`` is the op; made once for a shape and dtype, with all its kernels compiled."""

    def __init__(self, dtype: torch.dtype, in_size: int, out_size: int) -> None:
        self.dtype, self.in_size, self.out_size = dtype, in_size, out_size
        self.tile = tile_of(dtype, in_size, out_size)
        t = self.tile
        self._sizes: dict[str, Any] = {"M": t.rows, "C": t.columns, "B": t.inner, "STEPS": t.steps, "EVEN": t.even}
        self._how: dict[str, Any] = {"num_warps": t.warps, "num_stages": t.stages}

    def compile(self, device: torch.device, bias: bool) -> None:
        """All that ``__call__`` may launch."""
        with torch.cuda.device(device):
            one = torch.empty(16, dtype=self.dtype, device=device)
            own = one if bias else None
            self._whole(one, one, own, one, 1, warm=True)
            if self.tile.segments > 1:
                self._split(one, one, own, one, 1, warm=True)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not x.is_contiguous() or x.data_ptr() % 16:
            x = x.clone(memory_format=torch.contiguous_format)
        tokens = x.shape[0]
        out = x.new_empty(tokens, self.out_size)
        if not tokens:
            return out
        t = self.tile
        programs = -(-tokens // t.rows) * -(-self.out_size // t.columns)
        if t.segments > 1 and programs < BUSY:
            self._split(x, weight, bias, out, tokens)
        else:
            self._whole(x, weight, bias, out, tokens)
        return out

    def _whole(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, tokens: int, warm: bool = False
    ) -> None:
        t = self.tile
        grid = (-(-tokens // t.rows) * -(-self.out_size // t.columns),)
        self._launch(
            whole_kernel, grid, warm, x, weight, bias, out, tokens, self.out_size, self.in_size,
            SEGMENTS=t.segments, BIAS=bias is not None, GROUP=GROUP, **self._sizes, **self._how,
        )  # fmt: skip

    def _split(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, tokens: int, warm: bool = False
    ) -> None:
        t = self.tile
        parts = torch.empty(1 if warm else t.segments * tokens * self.out_size, dtype=torch.float32, device=x.device)
        grid = (-(-self.out_size // t.columns), t.segments, -(-tokens // t.rows))
        self._launch(
            part_kernel, grid, warm, x, weight, parts, tokens, self.out_size, self.in_size,
            **self._sizes, **self._how,
        )  # fmt: skip
        self._launch(
            add_kernel, (-(-self.out_size // COLUMNS), tokens), warm, parts, bias, out, tokens, self.out_size,
            SEGMENTS=t.segments, BIAS=bias is not None, C=COLUMNS,
        )  # fmt: skip

    @staticmethod
    def _launch(kernel: Any, grid: tuple[int, ...], warm: bool, *args: Any, **constants: Any) -> None:
        if warm:
            kernel.warmup(*args, grid=grid, **constants)
        else:
            kernel[grid](*args, **constants)


def invariant_linear(query: OpQuery) -> Callable[..., Tensor]:
    """`vllm_core.interfaces.op.OpKernel` for ``linear``."""
    sizes = {name: query.shape[name] for name in ("in_size", "out_size")}
    linear = InvariantLinear(getattr(torch, query.dtype), **sizes)  # type: ignore[arg-type]
    if torch.cuda.is_available():
        linear.compile(torch.device("cuda", torch.cuda.current_device()), bool(query.shape.get("bias")))
    return linear
