"""The contract of reasoning parsers: thinking apart from the answer. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from vllm_core.interfaces.tokenizer import Tokenizer


@attrs.frozen(kw_only=True)
class ReasoningParse:
    """What belongs to the reasoning and what to the answer, markers removed from both."""

    reasoning: str = ""
    content: str = ""


class ReasoningParser(Protocol):
    """Made for each request: ``Target(tokenizer, options)``, and the offer's options, if any, as keyword arguments.

    Either ``parse``, or ``feed``... ``finish``.
    """

    def __init__(self, tokenizer: Tokenizer, options: dict[str, Any]) -> None:
        """``options``: the request's chat template arguments (``{"enable_thinking": False}``)."""

    def prepare(self, options: dict[str, Any]) -> dict[str, Any]:
        """Change how the request is run, e.g. keep special tokens in its text. Returns the options to use.

        options   fields of SamplingParams: ``{"skip_special_tokens": True, ...}``
        """

    def starts_inside(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the prompt leaves the output inside the reasoning. Called first, once."""

    def ended(self, output_ids: Sequence[int]) -> bool:
        """Whether the reasoning is over; a grammar applies only from then on."""

    def parse(self, text: str) -> ReasoningParse:
        """The whole output of a request."""

    def feed(self, text: str, ids: Sequence[int]) -> ReasoningParse:
        """The next piece of output; cut anywhere, also inside a marker, which is then held back.

        ids   of the tokens that the piece came with; text and tokens do not end at the same places
        """

    def finish(self) -> ReasoningParse:
        """The output has ended: give what was held back.

        All pieces together equal ``parse`` of the whole text.
        """
