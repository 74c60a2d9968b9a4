"""The core's own chat renderer: the model's Jinja template, in transformers' sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_core.engine.chat_content import with_content
from vllm_core.engine.errors import nearest

__all__ = ["TemplateRenderer", "check_messages", "default_template", "template_renderer"]

OPTIONS = (
    "chat_template", "chat_template_content_format", "add_generation_prompt", "continue_final_message", "tools",
    "chat_template_kwargs", "tool_choice",
)  # fmt: skip


def template_renderer(tokenizer: Any) -> TemplateRenderer | NoTemplate:
    """The renderer of a tokenizer that transformers reads. Its ``chat_template`` goes before transformers' own."""
    hf = getattr(tokenizer, "hf", None)
    if hf is None:
        found = NoTemplate(type(tokenizer).__name__)
        if getattr(tokenizer, "chat_template", None):  # which nobody here can render
            found.render([])
        return found
    return TemplateRenderer(hf, getattr(tokenizer, "chat_template", None))


class NoTemplate:
    """Of a tokenizer that transformers does not read and that has no template: chats are refused, prompts are not."""

    def __init__(self, tokenizer: str) -> None:
        self._tokenizer = tokenizer

    def render(self, messages: Sequence[dict[str, Any]], **options: Any) -> str:
        raise ValueError(
            f"the tokenizer is a {self._tokenizer}, for which the core renders no Jinja template: "
            "its plugin should offer a chat_renderer"
        )


def default_template(templates: Any) -> str:
    """The template for plain conversations; some tokenizers have several, by name. "" without one."""
    if isinstance(templates, Mapping):
        templates = templates.get("default")
    return templates if isinstance(templates, str) else ""


class TemplateRenderer:
    """``interfaces.tokenizer.ChatRenderer`` over a transformers tokenizer, or a template of one's own."""

    def __init__(self, hf: Any, chat_template: str | Mapping[str, str] | None = None) -> None:
        self._hf = hf
        self.chat_template = chat_template or getattr(hf, "chat_template", None)

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        **options: Any,
    ) -> str:
        """The prompt. ``options`` are what the template itself reads.

        chat_template                 instead of the model's, or the name of one of several
        chat_template_content_format  how the template gets a message's content: see ``with_content``
        add_generation_prompt         whether the prompt ends where the answer begins; default: unless the next is set
        continue_final_message        whether the answer continues the last message
        """
        check_messages(messages)
        template = self._choose(chat_template, bool(tools))
        for name in options:
            # Templates read what they like; a name that none of it reads and that is nearly ours is a slip.
            if name not in template and (hint := nearest(name, OPTIONS)):
                raise ValueError(f"the chat template does not read {name!r}{hint}")
        messages = with_content(messages, chat_template_content_format, template)
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        try:
            return self._hf.apply_chat_template(
                messages,
                chat_template=template,
                tokenize=False,
                tools=None if tools is None else list(tools),
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **options,
            )
        except Exception as error:  # a template is the model author's code: whatever it raises is about this request
            raise ValueError(f"the chat template refuses these messages: {error}") from error

    def _choose(self, asked: str | None, tools: bool) -> str:
        named = self.chat_template
        if isinstance(named, Mapping):
            asked = asked or ("tool_use" if tools and "tool_use" in named else "default")
            if asked in named:
                return named[asked]
            if "{" not in asked:
                raise ValueError(
                    f"this model has no chat template {asked!r}{nearest(asked, named)}: {', '.join(named)}"
                )
        template = asked or named
        if not isinstance(template, str):
            raise ValueError(
                "this model's tokenizer has no chat template: pass chat_template=, or use generate with a plain prompt"
            )
        return template


def check_messages(messages: Any) -> None:
    """Raise ``ValueError`` naming the message that is not ``{"role": str, "content": ...}``."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(f"messages must be a list of at least one message, not {messages!r:.80}")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {i} must look like {{'role': 'user', 'content': '…'}}, not {message!r:.80}")
        if not isinstance(message.get("content"), str | list | type(None)):
            raise ValueError(f"message {i}: content must be text or a list of parts, not {message['content']!r:.80}")
