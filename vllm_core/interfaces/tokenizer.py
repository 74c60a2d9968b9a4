"""The contract of tokenizers and chat renderers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vllm_core.interfaces.weights import TokenizerFiles


class Tokenizer(Protocol):
    """Text to ids and back. Made once; used from several threads."""

    vocab_size: int
    eos_token_ids: tuple[int, ...]

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """``add_special_tokens`` puts what the model wants before and behind the text's own ids, and changes none."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of any ids, in any order. Bytes that are no character (yet) give U+FFFD, and ids that the
        tokenizer does not have give nothing: a model may have more logits than its tokenizer has tokens.
        """


class TokenizerFactory(Protocol):
    """A class or function that makes the tokenizer of a model."""

    def __call__(self, files: TokenizerFiles) -> Tokenizer:
        """Raises ``ValueError`` or ``OSError`` naming the file that is missing or wrong."""


class ChatRenderer(Protocol):
    """Messages to prompt text."""

    def render(self, messages: Sequence[dict[str, Any]], **options: Any) -> str:
        """Raises ``ValueError`` for messages that it cannot render: no list of objects with ``role`` and ``content``,
        which is a text, a list of parts or null; roles, parts, calls or tools that it does not know.

        options   tools: as in OpenAI's API, or None; add_generation_prompt: the prompt ends where the answer begins, as
                  it does by default; continue_final_message: it ends with the last message's content instead; others
                  are a request's ``chat_template_kwargs``. What it does not read it refuses by name.

        Called from several threads; leaves messages as they are.
        """


class RendererFactory(Protocol):
    """A class or function that makes the chat renderer that goes with a tokenizer."""

    def __call__(self, tokenizer: Any) -> ChatRenderer:
        """``tokenizer.chat_template`` is the setting of that name, where one was given."""
