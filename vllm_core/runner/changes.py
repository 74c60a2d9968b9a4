"""Everything that happens to a step's logits between the model and the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from vllm_core.interfaces.logits_processor import LogitsProcessor
from vllm_core.interfaces.steps import RowInit
from vllm_core.runner.edits import KINDS, Edits
from vllm_core.runner.grammars import GrammarRows, GrammarSource
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
        grammars: GrammarSource | None = None,
    ) -> None:
        self._rows = rows
        self.grammars: GrammarRows | None = None
        if grammars is not None:
            self.grammars = GrammarRows(rows, vocab, grammars, (ops or StepOps()).apply_token_bitmask)
        self.edits = Edits(rows.num_rows, vocab, rows.device, ops)
        self.processors = Processors(processors, rows) if processors else None

    def take(self, inits: Sequence[RowInit]) -> None:
        self.edits.take(inits)
        if self.grammars is not None:
            self.grammars.take(inits)
        if self.processors is not None:
            self.processors.take(inits)

    def asked(self, rows: np.ndarray) -> bool:
        """Whether any of these rows (int64 [S]) asks for a change, or a processor may want to."""
        grammars = self.grammars is not None and bool(self.grammars.any[rows].any())
        return grammars or self.processors is not None or bool(self.edits.any[rows].any())

    def apply(self, logits: Tensor, inputs: Inputs) -> Tensor:
        """Changed logits [M, V]; ``logits`` itself, never written to, if nobody asks for anything."""
        if self.grammars is not None:  # first: no other change leaves a line without a token
            logits = self.grammars.apply(logits, inputs)
        if self.processors is None:
            return self._edit(logits, inputs, KINDS)
        logits = self._edit(logits, inputs, [kind for kind in KINDS if kind != LAST])
        processed = self.processors.apply(logits, inputs)
        if self.grammars is not None:
            processed = self.grammars.again(processed, logits)
        return self._edit(processed, inputs, [LAST])

    @property
    def failed(self) -> dict[int, str]:
        """In the step applied last: rows (which of the plan's) that cannot go on, and why."""
        by_grammars = {} if self.grammars is None else self.grammars.failed
        return by_grammars if self.processors is None else {**self.processors.failed, **by_grammars}

    def after(self, inputs: Inputs, emitted: Emitted) -> None:
        """The step has moved the rows on and the next drafts are written."""
        if self.grammars is not None:
            self.grammars.after(inputs, emitted)
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
