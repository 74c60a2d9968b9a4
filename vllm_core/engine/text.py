"""What makes ids of text and text of ids. Needs no model and no torch, so it may live in another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.choose_text import choose_text
from vllm_core.engine.parsers import Parsers
from vllm_core.plugins import Selector

__all__ = ["Text", "read_text"]


@attrs.frozen
class Text:
    tokenizer: Any  # interfaces.tokenizer.Tokenizer, None if skipped
    renderer: Any  # interfaces.tokenizer.ChatRenderer, None without a tokenizer
    parsers: Parsers | None  # of tool calls and reasoning, None without a tokenizer
    eos_token_ids: tuple[int, ...]  # the model's and the tokenizer's


def read_text(
    selector: Selector, settings: EngineSettings, checkpoint: Any, config: Mapping[str, Any], eos: Sequence[int]
) -> Text:
    """Read the tokenizer and its chat template, and find the parsers that were named.

    checkpoint   ``interfaces.weights.Checkpoint``, or what else has its ``tokenizer``
    config       of the model: its ``architectures`` are read
    eos          ids that end a text, as the model's authors say
    """
    tokenizer, renderer = choose_text(selector, settings, checkpoint, config)
    parsers = None if tokenizer is None else Parsers(selector, settings, tokenizer, config.get("architectures") or ())
    of_tokenizer = tokenizer.eos_token_ids if tokenizer else ()
    return Text(tokenizer, renderer, parsers, tuple(dict.fromkeys([*eos, *of_tokenizer])))
