"""The rotary slot of attention layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers.base import Layer


class Rotary(Layer):
    """Rotates heads by their tokens' positions, with the table that the plan found for ``rope_parameters``."""

    table: RotaryTable

    def __init__(self, head_dim: int, rope_parameters: dict[str, Any]) -> None:
        super().__init__()
        self.head_dim, self.rope_parameters = head_dim, rope_parameters

    def setup(self, plan: Plan) -> None:
        self.table = plan.rotary(self.head_dim, self.rope_parameters)
        self.interleaved = self.table.interleaved
        # Layers with equal tables share the rows of a step under this key.
        self.key = ("rotary", id(self.table))
        self.rotate = plan.op(
            "rotary", head_dim=self.head_dim, rotary_dim=self.table.rotary_dim, interleaved=self.interleaved
        )

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """x [T, heads, head_dim], may be overwritten -> the same, rotated."""
        cos, sin = self.rows(batch)
        return self.rotate(x, cos, sin, self.interleaved)

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [T, rotary_dim / 2], of this step, looked up once for all layers."""
        return batch.shared.get(self.key) or self._look_up(batch)

    def _look_up(self, batch: Batch) -> tuple[Tensor, Tensor]:
        table, positions = self.table, batch.positions
        if positions.dim() == 1:
            rows = torch.index_select(table.cos, 0, positions), torch.index_select(table.sin, 0, positions)
        else:
            rows = self._by_axis(table.cos, positions), self._by_axis(table.sin, positions)
        batch.shared[self.key] = rows
        return rows

    def _by_axis(self, values: Tensor, positions: Tensor) -> Tensor:
        """positions [A, T]: section a of the frequencies takes its row from axis a (arXiv 2409.12191)."""
        sections = self.table.sections
        if len(sections) != positions.shape[0]:
            raise ValueError(
                f"{self.path}: positions have {positions.shape[0]} axes and the rotary table has sections {sections}"
            )
        parts = values.split(sections, dim=-1)
        return torch.cat([part[row] for part, row in zip(parts, positions, strict=True)], dim=-1)
