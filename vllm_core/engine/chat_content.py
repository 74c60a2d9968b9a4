"""A message's content as its template wants it: one text, or a list of parts."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_core.engine.errors import nearest

__all__ = ["FORMATS", "reads_parts", "with_content"]

FORMATS = ("auto", "string", "openai")
# transformers' own tag, which plain Jinja does not know.
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


def with_content(messages: Sequence[Mapping[str, Any]], form: str, template: str) -> list[dict[str, Any]]:
    """The messages with contents in one form: ``string``, ``openai`` (parts), or ``auto``: as the template reads them.

    Text parts are joined by line breaks, as vLLM does. ``ValueError`` for parts that are not text.
    """
    if form not in FORMATS:
        raise ValueError(
            f"chat_template_content_format must be {', '.join(FORMATS)}, not {form!r}{nearest(str(form), FORMATS)}"
        )
    parts = reads_parts(template) if form == "auto" else form == "openai"
    # A template that reads parts mostly reads text too; only the user may know that this one does not.
    return [_converted(i, m, parts, wrap=form == "openai") for i, m in enumerate(messages)]


def _converted(index: int, message: Mapping[str, Any], parts: bool, wrap: bool) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, str) and wrap:
        return {**message, "content": [{"type": "text", "text": content}]}
    if not isinstance(content, list):
        return dict(message)
    texts = [_text(index, part) for part in content]
    return {**message, "content": [{"type": "text", "text": t} for t in texts] if parts else "\n".join(texts)}


def _text(index: int, part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise ValueError(
            f"message {index}: a part of a content must be {{'type': 'text', 'text': '…'}}, not {part!r:.80}"
        )
    kind = part.get("type", "text")
    if kind not in ("text", "input_text", "output_text"):
        raise ValueError(f"message {index}: parts of type {kind!r:.40} are not supported yet, only text")
    if not isinstance(part.get("text"), str):
        raise ValueError(f"message {index}: a part of type {kind!r} needs a text, not {part.get('text')!r:.80}")
    return part["text"]


@functools.lru_cache(maxsize=16)
def reads_parts(template: str) -> bool:
    """Whether a template loops over the content of a message, as those do that know parts."""
    import jinja2
    from jinja2 import nodes

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True)
    try:
        tree = environment.parse(_GENERATION.sub("", template))
    except jinja2.TemplateError:
        return False  # rendering will say what is wrong with it
    return any(_is_content(loop.iter) for loop in tree.find_all(nodes.For))


def _is_content(node: Any) -> bool:
    """``message.content``, ``message["content"]``, a variable of that name, or a filtered or sliced one."""
    from jinja2 import nodes

    if isinstance(node, nodes.Filter | nodes.Getitem) and not (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const)
    ):
        return node.node is not None and _is_content(node.node)
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Name) and node.name == "content"
