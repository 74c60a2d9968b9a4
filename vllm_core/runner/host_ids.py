"""Output ids on the host, for logits processors that read them there: a step behind, and waited for when read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.steps import RowInit
from vllm_core.runner.inputs import Inputs
from vllm_core.runner.rows import Rows
from vllm_core.runner.staging import to_host, upload
from vllm_core.runner.verify import Emitted


@attrs.define
class _Copy:
    """Of a step, on its way: what its rows emitted, and their next drafts behind it."""

    rows: list[int]  # -1: the row was taken by another request
    ids: Tensor  # int64 [n, 1 + D + K]; -1 is no token
    emitted: int  # 1 + D
    event: Any | None  # recorded behind the copy; None: it is here


class HostIds:
    """``outputs[row]``: of rows that were taken with ``take``, up to the copies still on their way."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.outputs: dict[int, list[int]] = {}
        self.drafts: dict[int, list[int]] = {}
        self._copies: list[_Copy] = []

    def take(self, init: RowInit, needed: bool) -> None:
        """A request takes a row."""
        for copy in self._copies:
            copy.rows = [-1 if row == init.row else row for row in copy.rows]
        self.outputs.pop(init.row, None)
        self.drafts.pop(init.row, None)
        if needed:
            self.outputs[init.row] = init.token_ids[init.num_prompt :]

    def before(self, rows: Sequence[int], drafts: Sequence[int]) -> list[list[int]]:
        """The output ids before the token that each line draws: its row's, then so many of the row's drafts.

        Waits for the copies of earlier steps. The step that is being launched need not have run:
        the device works on its forward pass meanwhile.
        """
        self.wait()
        return [self.outputs[row] + self._guesses(row, count) for row, count in zip(rows, drafts, strict=True)]

    def wait(self) -> None:
        """Until ``outputs`` and ``drafts`` are those of all earlier steps."""
        for copy in self._copies:
            self._read(copy)
        self._copies = []

    def after(self, inputs: Inputs, emitted: Emitted) -> None:
        """Begin to copy what a step emitted, once the rows have moved on and have their drafts."""
        which = [n for n, row in enumerate(inputs.sampling_rows_host.tolist()) if row in self.outputs]
        if not which:
            return
        rows = self._rows
        at = upload({"which": np.array(which, dtype=np.int64)}, rows.device)["which"]
        mine = inputs.sampling_rows.index_select(0, at)
        column = torch.arange(rows.num_drafts, device=rows.device)
        drafts_at = (mine * rows.room + rows.num_tokens.index_select(0, mine))[:, None] + column
        drafts = rows.token_ids.view(-1).index_select(0, drafts_at.view(-1)).view(len(which), -1)
        ids = torch.cat((emitted.token_ids.index_select(0, at), drafts.long()), 1)
        host, event = to_host(ids)
        taken = [int(inputs.sampling_rows_host[n]) for n in which]
        self._copies.append(_Copy(taken, host, emitted.token_ids.shape[1], event))

    def _guesses(self, row: int, count: int) -> list[int]:
        return [token for token in self.drafts.get(row, [])[:count] if token >= 0]

    def _read(self, copy: _Copy) -> None:
        if copy.event is not None:
            copy.event.synchronize()
        for row, ids in zip(copy.rows, copy.ids.tolist(), strict=True):
            if row >= 0:
                self.outputs[row] += [token for token in ids[: copy.emitted] if token >= 0]
                self.drafts[row] = ids[copy.emitted :]
