"""A logits processor at work on rows made by hand: what the runner would give it, and a check of what comes back."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.logits_processor import LogitsProcessor
from vllm_core.interfaces.proposer import RowView

__all__ = ["Line", "Running", "Trial"]

SPARE = 5  # places behind the longest row's tokens


@attrs.frozen
class Running:
    """A request in the middle of its output; a guess of -1 is none."""

    name: str
    params: Mapping[str, Any]
    prompt: Sequence[int]
    output: Sequence[int] = ()
    guesses: Sequence[int] = ()

    @property
    def known(self) -> list[int]:
        return [*self.prompt, *self.output, *self.guesses]


@attrs.frozen
class Line:
    """One line of logits: the token behind ``guesses`` of the request's guesses."""

    request: Running
    guesses: int

    @property
    def output(self) -> list[int]:
        return [*self.request.output, *self.request.guesses[: self.guesses]]

    @property
    def sound(self) -> bool:
        """Whether what it draws may be used: no guess before it is missing."""
        return -1 not in self.output

    def __str__(self) -> str:
        behind = f", behind {self.guesses} drafts" if self.guesses else ""
        return f"{self.request.name}, after {len(self.request.output)} tokens of output{behind}"


class Trial:
    """Rows of one processor. ``take`` as the runner does when requests begin, ``apply`` as in a step."""

    def __init__(self, processor: LogitsProcessor, max_rows: int, vocab_size: int, device: torch.device) -> None:
        self.processor, self.max_rows, self.vocab_size, self.device = processor, max_rows, vocab_size, device
        self.rows: dict[str, int] = {}  # by the name of the request

    def take(self, request: Running, row: int) -> None:
        self.rows[request.name] = row
        self.processor.take(row, dict(request.params), list(request.prompt))

    def step(self, requests: Sequence[Running], junk: int = 0) -> dict[str, Any]:
        """Arguments of ``apply`` but for the logits. ``junk`` stands where nothing is known."""
        lines = self.lines(requests)
        room = max(len(r.known) for r in requests) + SPARE
        token_ids = torch.full((self.max_rows, room), junk, dtype=torch.int32)
        num_tokens = torch.ones(self.max_rows, dtype=torch.int32)
        for request in requests:
            row = self.rows[request.name]
            token_ids[row, : len(request.known)] = torch.tensor(request.known, dtype=torch.int32)
            num_tokens[row] = len(request.prompt) + len(request.output)
        rows = [self.rows[line.request.name] for line in lines]
        ends = [len(line.request.prompt) + len(line.output) for line in lines]
        ids = None
        if self.processor.needs_ids:
            ids = [[token for token in line.output if token >= 0] for line in lines]
        return {
            "rows": torch.tensor(rows, device=self.device),
            "ends": torch.tensor(ends, device=self.device),
            "view": RowView(token_ids=token_ids.to(self.device), num_tokens=num_tokens.to(self.device)),
            "ids": ids,
        }

    @staticmethod
    def lines(requests: Sequence[Running]) -> list[Line]:
        return [Line(request, guesses) for request in requests for guesses in range(len(request.guesses) + 1)]

    def apply(self, requests: Sequence[Running], logits: Tensor, junk: int = 0) -> Tensor:
        """Of logits float32 [N, V], a line each: what the processor makes of a copy, checked for form; on the CPU."""
        given = self.step(requests, junk)
        before = {k: v.clone() for k, v in _tensors(given).items()}
        got = self.processor.apply(logits.clone().to(self.device), **given)
        assert isinstance(got, Tensor), f"apply gives {type(got).__name__}, not the changed logits"
        shape, want = tuple(got.shape), tuple(logits.shape)
        assert (shape, got.dtype) == (want, torch.float32), f"apply gives {got.dtype} {shape}, not float32 {want}"
        for name, tensor in _tensors(given).items():
            assert torch.equal(tensor, before[name]), f"apply has written into {name}, which it may only read"
        got = got.cpu()
        for i, line in enumerate(self.lines(requests)):
            if line.sound:
                wrong = got[i].isnan() | (got[i] == float("inf"))
                assert not wrong.any(), f"{line}: token {int(wrong.nonzero()[0])} gets {got[i][wrong][0]:g}"
        return got


def _tensors(given: Mapping[str, Any]) -> dict[str, Tensor]:
    view = given["view"]
    return {
        "rows": given["rows"],
        "ends": given["ends"],
        "view.token_ids": view.token_ids,
        "view.num_tokens": view.num_tokens,
    }


def random_logits(lines: int, vocab_size: int, seed: int = 0) -> Tensor:
    """float32 [lines, V], as spread as a model's."""
    return torch.randn(lines, vocab_size, generator=torch.Generator().manual_seed(seed)) * 3


def random_ids(count: int, vocab_size: int, dice: random.Random) -> list[int]:
    """Few different ones, so that they come again."""
    return [dice.randrange(min(vocab_size, 12)) for _ in range(count)]
