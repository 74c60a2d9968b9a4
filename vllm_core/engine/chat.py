"""The core's own chat renderer: the model's Jinja template, in transformers' sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["TemplateRenderer", "check_messages", "template_renderer"]


def template_renderer(tokenizer: Any) -> TemplateRenderer:
    """The renderer of a tokenizer that transformers reads."""
    hf = getattr(tokenizer, "hf", None)
    if hf is None:
        raise ValueError(
            f"the tokenizer is a {type(tokenizer).__name__}, which brings no Jinja template: "
            "its plugin should offer a chat_renderer"
        )
    return TemplateRenderer(hf)


class TemplateRenderer:
    """``interfaces.tokenizer.ChatRenderer`` over a transformers tokenizer, or a template of one's own."""

    def __init__(self, hf: Any, chat_template: str | None = None) -> None:
        self._hf = hf
        self.chat_template: str | None = chat_template or getattr(hf, "chat_template", None)

    def render(self, messages: Sequence[dict[str, Any]], **options: Any) -> str:
        """``options`` reach the template: add_generation_prompt (default True), tools, and what it reads itself."""
        check_messages(messages)
        template = options.pop("chat_template", None) or self.chat_template
        if not template:
            raise ValueError(
                "this model's tokenizer has no chat template: pass chat_template=, or use generate with a plain prompt"
            )
        options.setdefault("add_generation_prompt", not options.get("continue_final_message", False))
        try:
            return self._hf.apply_chat_template(list(messages), chat_template=template, tokenize=False, **options)
        except Exception as error:  # a template is the model author's code: whatever it raises is about this request
            raise ValueError(f"the chat template refuses these messages: {error}") from error


def check_messages(messages: Any) -> None:
    """Raise ``ValueError`` naming the message that is not ``{"role": str, "content": ...}``."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(f"messages must be a list of at least one message, not {messages!r:.80}")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {i} must look like {{'role': 'user', 'content': '…'}}, not {message!r:.80}")
        if not isinstance(message.get("content"), str | list | type(None)):
            raise ValueError(f"message {i}: content must be text or a list of parts, not {message['content']!r:.80}")
