"""Everything that happens to a step's logits between the model and the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from vllm_core.interfaces.logits_processor import LogitsProcessor
from vllm_core.interfaces.steps import RowInit
from vllm_core.runner.edits import KINDS, Edits
from vllm_core.runner.inputs import Inputs
from vllm_core.runner.processors import Processors
from vllm_core.runner.rows import Rows
from vllm_core.runner.step_ops import StepOps
from vllm_core.runner.verify import Emitted

LAST = "penalties"


class Changes:
    """What requests ask for by parameter, and logits processors: these come before the penalties, as in vLLM."""

    def __init__(
        self,
        rows: Rows,
        vocab: int,
        processors: Mapping[str, LogitsProcessor],
        ops: StepOps | None = None,
    ) -> None:
        self._rows = rows
        self.edits = Edits(rows.num_rows, vocab, rows.device, ops)
        self.processors = Processors(processors, rows) if processors else None

    def take(self, inits: Sequence[RowInit]) -> None:
        self.edits.take(inits)
        if self.processors is not None:
            self.processors.take(inits)

    def asked(self, rows: np.ndarray) -> bool:
        """Whether any of these rows (int64 [S]) asks for a change, or a processor may want to."""
        return self.processors is not None or bool(self.edits.any[rows].any())

    def apply(self, logits: Tensor, inputs: Inputs) -> Tensor:
        """Changed logits [M, V]; ``logits`` itself, never written to, if nobody asks for anything."""
        if self.processors is None:
            return self._edit(logits, inputs, KINDS)
        logits = self._edit(logits, inputs, [kind for kind in KINDS if kind != LAST])
        return self._edit(self.processors.apply(logits, inputs), inputs, [LAST])

    def after(self, inputs: Inputs, emitted: Emitted) -> None:
        """The step has moved the rows on and the next drafts are written."""
        if self.processors is not None:
            self.processors.after(inputs, emitted)

    def _edit(self, logits: Tensor, inputs: Inputs, kinds: Sequence[str]) -> Tensor:
        return self.edits.apply(
            logits,
            inputs.logits_rows_host,
            inputs.logits_rows,
            inputs.logits_ends,
            self._rows.token_ids[:, : inputs.longest],
            kinds,
        )
