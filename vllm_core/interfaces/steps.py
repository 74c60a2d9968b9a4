"""Messages between the engine and the devices: one plan down, one result up, each step. No torch.

Fixed schemas (msgspec), because worker processes receive them over a wire.

A row is a request's place on the device. Its token ids, its length and the number of tokens
computed so far live there and advance there; the engine learns them a step later. So a plan
never says positions: it says which rows run and how many tokens each, at most.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np

from vllm_core.interfaces.grammar import GrammarSpec

NULL_PAGE = 0
"""Page 0 belongs to nobody: tables point there where a page was freed or is not needed."""


class RowSampling(msgspec.Struct, frozen=True):
    """How a row's tokens are drawn. ``seed`` with a token's position decides its noise."""

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0  # least share of the likeliest token's probability; 0: none
    repetition_penalty: float = 1.0  # of tokens in prompt or output
    presence_penalty: float = 0.0  # of tokens in the output
    frequency_penalty: float = 0.0  # of each time that a token is in the output
    logit_bias: dict[int, float] = {}  # token id -> added to its logit
    allowed_ids: list[int] = []  # empty: all
    bad_words: list[list[int]] = []  # none of these token sequences is completed in the output
    min_tokens: int = 0  # of output before one of stop_ids
    stop_ids: list[int] = []
    logprobs: int | None = None  # likeliest tokens reported beside each drawn one; -1: all; None: no report
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt
    processors: list[str] = []  # logits processors that change its logits, by name
    extra_args: dict[str, Any] = {}  # their parameters
    grammar: GrammarSpec | None = None  # what the output conforms to
    reasoning: dict[str, Any] | None = None  # the grammar begins behind the reasoning, which a parser with these
    # options finds; None: at once


class RowInit(msgspec.Struct, frozen=True):
    """A request takes a row: everything the row remembers is set, nothing is inherited."""

    row: int
    token_ids: list[int]  # all that the engine knows: prompt and outputs so far
    num_computed: int  # tokens whose cache entries are already there (a prefix hit)
    pages: list[list[int]]  # per cache group, in block order
    sampling: RowSampling
    num_prompt: int = 0  # tokens of the prompt: those behind them are outputs
    report_from: int = 1  # with prompt_logprobs: the first position of the prompt that was not reported yet


class PageGrowth(msgspec.Struct, frozen=True):
    """Pages for blocks ``first_block`` and on of one row in one group."""

    row: int
    group: int
    first_block: int
    pages: list[int]


class PageCopy(msgspec.Struct, frozen=True):
    """Copy a page (all its tensors) before the step: copy on write, or a state checkpoint."""

    group: int
    source: int
    target: int


class StepPlan(msgspec.Struct, frozen=True):
    """One step. The lists of the lower part run in parallel, one entry a scheduled row."""

    step: int  # counts up by one
    inits: list[RowInit]
    growths: list[PageGrowth]
    copies: list[PageCopy]

    rows: list[int]
    num_tokens: list[int]  # query tokens; for a decoding row 1 + its drafts
    num_drafts: list[int]  # 0 while the prompt is computed
    samples: list[bool]  # False for a prompt chunk that is not the last
    kv_bounds: list[int]  # upper bound of the row's cache length after the step, tokens


class LogprobLines(msgspec.Struct, frozen=True):
    """Natural logarithms of probabilities, for the requests of a step that ask for k likeliest tokens.

    A line is a position: column 0 is the token that is there, columns 1 to k the likeliest ones in
    falling order. The probabilities are the model's own, before anything a request asks for.
    """

    rows: list[int]  # which of plan.rows; the lines of each follow each other
    counts: list[int]  # lines of each
    first: list[int]  # of each: for a prompt, the position of its first line; else 0, the first sampled token
    token_ids: np.ndarray  # int32 [M, 1 + k]; -1 in column 0 where nothing was emitted
    logprobs: np.ndarray  # float32 [M, 1 + k]
    ranks: np.ndarray  # int32 [M], of column 0; 1 is the likeliest


class StepResult(msgspec.Struct, frozen=True):
    """What a step sampled. Row i of ``token_ids`` belongs to ``plan.rows[i]``."""

    step: int
    token_ids: np.ndarray  # int32 [S, 1 + K]; -1 where nothing was sampled or a draft was rejected
    logprobs: list[LogprobLines] = []  # of sampled tokens, one for each k that some row asks for
    prompt_logprobs: list[LogprobLines] = []
    failed: dict[int, str] = {}  # rows (which of plan.rows) that cannot go on, and why; their tokens mean nothing

    def tokens(self, i: int) -> list[int]:
        row = self.token_ids[i]
        return row[row >= 0].tolist()


class Pending(Protocol):
    """A launched step."""

    def done(self) -> bool:
        """Whether ``result`` would return at once."""

    def result(self, timeout: float | None = None) -> StepResult:
        """Wait for the step. Raises ``TimeoutError``, or the step's own exception."""
