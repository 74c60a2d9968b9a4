"""Lists of different lengths, one a row, as one padded tensor that grows when a longer list comes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vllm_core.runner.staging import upload


class RowLists:
    """``table`` [R, W]: entries of row r, then ``pad``. Takes no memory until a list is set.

    dtype   torch.int64 or torch.float64, as host numbers travel
    """

    def __init__(self, num_rows: int, pad: float, dtype: torch.dtype, device: torch.device) -> None:
        self.num_rows, self.pad, self.dtype, self.device = num_rows, pad, dtype, device
        self.table = torch.empty((num_rows, 0), dtype=dtype, device=device)

    def set(self, rows: Sequence[int], lists: Sequence[Sequence[float]]) -> None:
        """Replace the lists of ``rows``; what they held before is gone."""
        self._widen(max(map(len, lists), default=0))
        width = self.table.shape[1]
        if not width or not rows:
            return
        kind = np.int64 if self.dtype == torch.int64 else np.float64
        entries = np.full((len(rows), width), self.pad, dtype=kind)
        for i, entry in enumerate(lists):
            entries[i, : len(entry)] = entry
        new = upload({"rows": np.array(rows, dtype=np.int64), "entries": entries.reshape(-1)}, self.device)
        self.table.index_copy_(0, new["rows"], new["entries"].view(len(rows), width))

    def _widen(self, needed: int) -> None:
        width = self.table.shape[1]
        if needed <= width:
            return
        # A power of two, so that few different widths are ever seen.
        shape = (self.num_rows, 1 << (needed - 1).bit_length())
        wider = torch.full(shape, self.pad, dtype=self.dtype, device=self.device)
        wider[:, :width] = self.table
        self.table = wider
