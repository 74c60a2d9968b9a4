"""The parsers of a chat at its outputs, which hold the whole text each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from vllm_core.engine.errors import RequestError
from vllm_core.engine.outputs import CompletionOutput, ParsedDelta, RequestOutput
from vllm_core.engine.parsing import Made, OutputParser, warn
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.structured_outputs import StructuredOutputsParams

__all__ = ["ChatParsing"]


@attrs.define(slots=True)
class _Reading:
    """One output of a request, and how far it has been read."""

    parser: OutputParser
    characters: int = 0  # of the text, read
    tokens: int = 0
    over: bool = False

    def go_on(self, completion: CompletionOutput) -> ParsedDelta:
        if self.over:
            return ParsedDelta()
        text, ids = completion.text[self.characters :], completion.token_ids[self.tokens :]
        self.characters, self.tokens = len(completion.text), len(completion.token_ids)
        news = self.parser.feed(text, ids)
        if not completion.finished:
            return news
        self.over = True
        last = self.parser.finish()
        return ParsedDelta(
            reasoning=news.reasoning + last.reasoning,
            content=news.content + last.content,
            calls=news.calls + last.calls,
        )


class ChatParsing:
    """Reads the answers of one call of ``chat``, those to each of its conversations."""

    def __init__(
        self,
        tool: Made | None,
        reasoning: Made | None,
        options: Mapping[str, Any] | None = None,
        forced: StructuredOutputsParams | None = None,
    ) -> None:
        """``options``: of the reasoning parser. ``forced``: what outputs conform to because a call must be made."""
        self._tool, self._reasoning = tool, reasoning
        self._options, self._forced = dict(options or {}), forced
        self._open: dict[tuple[str, int], _Reading] = {}

    def prepare(self, params: SamplingParams) -> SamplingParams:
        """How the request must be run for the parsers to see what they look for.

        A grammar begins behind the reasoning, where a parser looks for that. ``RequestError`` if two are asked for.
        """
        wanted = params.structured_outputs
        if self._forced is not None:
            if wanted is not None:
                raise RequestError("tool_choice forces a call, and structured_outputs asks for something else")
            wanted = self._forced
        if wanted is not None and self._reasoning is not None:
            wanted = wanted.behind_reasoning(_plain(self._options))
        if wanted is not params.structured_outputs:
            held: dict[str, Any] = {"structured_outputs": wanted}
            params = attrs.evolve(params, **held)
        for made in (self._reasoning, self._tool):
            if made is None:
                continue
            try:
                fields = {a.name: getattr(params, a.name) for a in attrs.fields(SamplingParams)}
                changed = made.make().prepare(dict(fields))
                params = attrs.evolve(params, **{k: v for k, v in changed.items() if v != fields.get(k, made)})
            except Exception as error:
                warn("of a chat", made, error)
        return params

    def parser(self, prompt_ids: Sequence[int], request_id: str = "") -> OutputParser:
        """For those who have the text of one output in pieces, instead of ``read``."""
        return OutputParser(self._tool, self._reasoning, prompt_ids, request_id)

    def read(self, output: RequestOutput) -> RequestOutput:
        """Add to an output what its text says. Outputs of a request must come in order; some may be left out."""
        for completion in output.outputs:
            key = (output.request_id, completion.index)
            reading = self._open.get(key)
            if reading is None:
                reading = self._open[key] = _Reading(self.parser(output.prompt_token_ids, output.request_id))
            completion.delta = reading.go_on(completion)
            parser = reading.parser
            completion.reasoning, completion.content = parser.reasoning, parser.content
            completion.tool_calls = parser.tool_calls
        if output.finished:
            for completion in output.outputs:
                self._open.pop((output.request_id, completion.index), None)
        return output


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can be told to the engine, which may run elsewhere; a parser reads flags and words, not objects."""
    found = {}
    for key, value in options.items():
        try:
            msgspec.msgpack.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            continue
        found[key] = value
    return found
