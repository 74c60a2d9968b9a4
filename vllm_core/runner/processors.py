"""The engine's logits processors at work: each sees the lines of the rows that it affects.

What one raises ends the requests it raised over: where it fails for several rows together, it is asked for each alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.logits_processor import LogitsProcessor
from vllm_core.interfaces.steps import RowInit
from vllm_core.runner.host_ids import HostIds
from vllm_core.runner.inputs import Inputs
from vllm_core.runner.rows import Rows
from vllm_core.runner.staging import upload
from vllm_core.runner.verify import Emitted

log = logging.getLogger(__name__)


class Processors:
    """``made``: by name, in the order in which they apply."""

    def __init__(self, made: Mapping[str, LogitsProcessor], rows: Rows) -> None:
        self._made, self._rows = dict(made), rows
        self._affected = {name: np.zeros(rows.num_rows, dtype=bool) for name in made}
        self._broken: dict[int, str] = {}  # rows, and why they cannot go on
        self.failed: dict[int, str] = {}  # in the step applied last: which of the plan's rows, and why
        self._ids = HostIds(rows) if any(p.needs_ids for p in made.values()) else None

    def take(self, inits: Sequence[RowInit]) -> None:
        for init in inits:
            wanted = init.sampling.processors
            self._broken.pop(init.row, None)
            for name, processor in self._made.items():
                self._affected[name][init.row] = name in wanted
                if name in wanted:
                    try:
                        processor.take(init.row, init.sampling.extra_args, init.token_ids[: init.num_prompt])
                    except Exception as error:
                        self._broken[init.row] = _why(name, error)
            if self._ids is not None:
                self._ids.take(init, any(self._made[name].needs_ids for name in wanted))

    def apply(self, logits: Tensor, inputs: Inputs) -> Tensor:
        """Changed logits, float32 [M, V]; ``logits`` itself if no processor affects any of the rows."""
        host = inputs.logits_rows_host
        own = False
        for name, processor in self._made.items():
            affected = self._affected[name][host]
            if processor.keeps_argmax:
                affected = affected & ~self._rows.host_greedy[host]
            if self._broken:
                affected = affected & ~np.isin(host, list(self._broken))
            lines = np.flatnonzero(affected)
            if not len(lines):
                continue
            if not own:
                logits, own = logits.float().clone(), True
            try:
                self._process(name, processor, lines, logits, inputs)
            except Exception:
                for row in np.unique(host[lines]):
                    try:
                        self._process(name, processor, lines[host[lines] == row], logits, inputs)
                    except Exception as error:
                        log.exception('logits processor "%s" failed', name)
                        self._broken[int(row)] = _why(name, error)
        self.failed = {}
        for line in np.flatnonzero(np.isin(host, list(self._broken))) if self._broken else ():
            place = int(inputs.sampling_host[inputs.logits_sampling_host[line]])
            self.failed[place] = self._broken[int(host[line])]
        return logits

    def _process(
        self, name: str, processor: LogitsProcessor, lines: np.ndarray, logits: Tensor, inputs: Inputs
    ) -> None:
        """Change these lines of ``logits``, or none of them if the processor raises."""
        host = inputs.logits_rows_host
        at = upload({"lines": lines}, logits.device)["lines"]
        ids = None
        if processor.needs_ids and self._ids is not None:
            ids = self._ids.before(host[lines].tolist(), inputs.logits_drafts_host[lines].tolist())
        part = logits.index_select(0, at)
        shape = part.shape
        rows, ends = inputs.logits_rows.index_select(0, at), inputs.logits_ends.index_select(0, at)
        part = processor.apply(part, rows, ends, self._rows.view, ids)
        if not isinstance(part, Tensor) or part.shape != shape or part.dtype != torch.float32:
            raise ValueError(f"apply must return float32 {tuple(shape)}, not {_kind(part)}")
        # A line where no token is left stays as it was: something must be drawn.
        before, dead = logits.index_select(0, at), part.amax(-1, keepdim=True) == float("-inf")
        logits.index_copy_(0, at, torch.where(dead, before, part))

    def after(self, inputs: Inputs, emitted: Emitted) -> None:
        """The step has moved the rows on."""
        if self._ids is not None:
            self._ids.after(inputs, emitted)


def _why(name: str, error: Exception) -> str:
    return f'logits processor "{name}" failed: {type(error).__name__}: {error}'


def _kind(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
