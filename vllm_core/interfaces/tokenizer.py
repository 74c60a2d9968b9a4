"""The contract of tokenizers and chat renderers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vllm_core.interfaces.weights import TokenizerFiles


class Tokenizer(Protocol):
    """Text to ids and back. Made once; used from several threads."""

    vocab_size: int
    eos_token_ids: tuple[int, ...]

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str: ...


class TokenizerFactory(Protocol):
    """A class or function that makes the tokenizer of a model."""

    def __call__(self, files: TokenizerFiles) -> Tokenizer:
        """Raises ``ValueError`` or ``OSError`` naming the file that is missing or wrong."""


class ChatRenderer(Protocol):
    """Messages to prompt text."""

    def render(self, messages: Sequence[dict[str, Any]], **options: Any) -> str:
        """Raises ``ValueError`` for messages the template refuses."""


class RendererFactory(Protocol):
    """A class or function that makes the chat renderer that goes with a tokenizer."""

    def __call__(self, tokenizer: Any) -> ChatRenderer:
        """``tokenizer.chat_template`` is the setting of that name, where one was given."""
