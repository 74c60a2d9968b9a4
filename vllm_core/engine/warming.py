"""Tells each new engine of a front its vocabulary, so that what compiles grammars is ready before it is needed.

The front has read the tokenizer; the engine would do so with its first structured output, in the process of its loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from vllm_core.engine import wire
from vllm_core.engine.attached import call_in
from vllm_core.engine.choose_grammars import GrammarChoices
from vllm_core.engine.link import Link
from vllm_core.engine.vocabulary import vocabulary_of

__all__ = ["Warming"]

log = logging.getLogger(__name__)

AFTER = 1.0  # seconds after the start: whoever waited for the engine has first answers before


class Warming:
    """text   ``engine.build.Text``"""

    def __init__(self, choices: GrammarChoices, text: Any, vocab_size: int) -> None:
        self._wanted = choices.config.warm and bool(choices.backends) and text.tokenizer is not None
        self._text, self._vocab_size = text, vocab_size

    def begin(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        """An engine is ready at the other end of ``link``."""
        if self._wanted:
            loop.call_later(AFTER, self._start, loop, link)

    def _start(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        threading.Thread(target=self._tell, args=(loop, link), daemon=True, name="vllm-core-warming").start()

    def _tell(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        try:
            vocabulary = vocabulary_of(self._text.tokenizer, self._vocab_size, self._text.eos_token_ids)
            reasons = self._text.parsers is not None and self._text.parsers.reasoning({}) is not None
        except Exception as error:  # the first request that needs it will say so, too
            log.warning("the engine is not told its vocabulary ahead: %s: %s", type(error).__name__, error)
        else:
            call_in(loop, link.send, wire.Warm(vocabulary, reasons))
