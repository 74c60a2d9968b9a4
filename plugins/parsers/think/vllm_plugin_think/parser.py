"""``<think>reasoning</think>answer``."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from vllm_core.interfaces.reasoning_parser import ReasoningParse
from vllm_core.interfaces.tokenizer import Tokenizer
from vllm_core.text.pieces import Pieces, Reading, hides
from vllm_plugin_think.prompt import BEGIN, END, left_open

__all__ = ["ThinkFirst", "ThinkTags"]

INSIDE, PERHAPS, ANSWER = "inside", "perhaps", "answer"
SPAN = 16  # tokens that a tag may take, if it is none itself


class ThinkTags:
    """Reasoning is what the output begins with between the tags, or goes on with if the prompt has begun it.

    ``enable_thinking`` False: all is the answer. A tag later in the answer is text. An output that
    ends within the reasoning was all reasoning.
    """

    def __init__(self, tokenizer: Tokenizer, options: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._start = self._usual(options)
        self._pieces = Pieces()
        self._run: Generator[None, None, None] | None = self._read(self._pieces)
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._begun, self._over, self._seen = False, False, 0  # of ``ended``: what it saw, and tokens so far

    def _usual(self, options: dict[str, Any]) -> str:
        """Where an output begins, if the prompt does not say."""
        return ANSWER if options.get("enable_thinking") is False else PERHAPS

    def prepare(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "skip_special_tokens": False} if hides(self._tokenizer, (BEGIN, END)) else options

    def starts_inside(self, prompt_ids: Sequence[int]) -> bool:
        found = left_open(self._tokenizer, prompt_ids)
        if found is not None:
            self._start = INSIDE if found else ANSWER
        return self._start == INSIDE

    def ended(self, output_ids: Sequence[int]) -> bool:
        """A look at the new tokens and a few before them. While it is open whether there is reasoning: no."""
        if self._over or self._start == ANSWER:
            return True
        if self._start == PERHAPS and not self._begun:
            text = self._decode(output_ids[self._seen :]).lstrip()
            if not text or (len(text) < len(BEGIN) and BEGIN.startswith(text)):
                self._seen = self._seen if text else len(output_ids)
                return False
            if not text.startswith(BEGIN):
                self._over = True
                return True
            self._begun = True
        self._over = END in self._decode(output_ids[max(self._seen - SPAN, 0) :])
        self._seen = len(output_ids)
        return self._over

    def parse(self, text: str) -> ReasoningParse:
        parts = [self.feed(text, ()), self.finish()]
        return ReasoningParse(
            reasoning="".join(part.reasoning for part in parts), content="".join(part.content for part in parts)
        )

    def feed(self, text: str, ids: Sequence[int]) -> ReasoningParse:
        self._pieces.push(text)
        return self._go_on()

    def finish(self) -> ReasoningParse:
        self._pieces.close()
        return self._go_on()

    def _read(self, text: Pieces) -> Reading[None]:
        where = self._start
        if where != ANSWER:
            space = yield from text.space()
            if (yield from text.passes(BEGIN)):
                where = INSIDE
            elif where == INSIDE:
                self._reasoning.append(space)
            else:
                self._content.append(space)
        if where == INSIDE:
            yield from text.until((END,), self._reasoning.append)
        while (yield from text.peek()):
            self._content.append(text.take())

    def _go_on(self) -> ReasoningParse:
        if self._run is not None and next(self._run, self) is self:
            self._run = None
        news = ReasoningParse(reasoning="".join(self._reasoning), content="".join(self._content))
        self._reasoning.clear()
        self._content.clear()
        return news

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


class ThinkFirst(ThinkTags):
    """All up to ``</think>`` is reasoning, with ``<think>`` or without, unless the prompt has ended it."""

    def _usual(self, options: dict[str, Any]) -> str:
        return INSIDE
