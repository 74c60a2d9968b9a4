"""/v1/messages, Anthropic's shape."""

from __future__ import annotations

from typing import Any

from vllm_plugin_server.testing.case import Case, case

__all__ = ["cases"]

ROUTE = "/v1/messages"
EITHER = (200, 400)
USER = {"role": "user", "content": "Hi"}


def _says(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def _image(**source: Any) -> dict[str, Any]:
    return _says({"type": "image", "source": source})


# (name, fields, what may be answered, advisories)
TABLE: tuple[tuple[str, dict[str, Any], tuple[int, ...], tuple[str, ...]], ...] = (
    ("no messages", {"messages": None}, (400,), ()),
    ("an empty list", {"messages": []}, (400,), ()),
    ("text", {"messages": "Hi"}, (400,), ()),
    ("numbers", {"messages": [1]}, (400,), ()),
    ("an empty message", {"messages": [{}]}, (400,), ()),
    ("a role that nobody has", {"messages": [{"role": "wizard", "content": "x"}]}, (400,), ()),
    ("a message without content", {"messages": [{"role": "user"}]}, (400,), ()),
    ("a number for content", {"messages": [{"role": "user", "content": 1}]}, (400,), ()),
    ("a block without a type", _says({"text": "x"}), (400,), ()),
    ("a block of an unknown type", _says({"type": "dream"}), (400,), ()),
    ("a block of text without text", _says({"type": "text"}), (400,), ()),
    ("a block that is a number", _says(1), (400,), ()),
    ("an image of junk", _image(type="base64", media_type="image/png", data="!!"), (400,), ("CVE-2026-54236",)),
    ("an image from inside", _image(type="url", url="http://169.254.169.254/"), (400,), ("CVE-2025-6242",)),
    ("an image that is a file", _image(type="url", url="file:///etc/passwd"), (400,), ("CVE-2026-73560",)),
    ("a source that nobody has", _image(type="x"), (400,), ()),
    ("1,000 images", _says(*[{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:1/"}}] * 1000),
     (400,), ("CVE-2026-130686",)),
    ("a document", _says({"type": "document", "source": {"type": "url", "url": "http://127.0.0.1/"}}), (400,), ()),
    ("a result of no call", _says({"type": "tool_result", "content": "x"}), (400,), ()),
    ("no max_tokens", {"max_tokens": None}, (400,), ()),
    ("a system that is a number", {"system": 1}, (400,), ()),
    ("a system of wrong blocks", {"system": [{"type": "x"}]}, (400,), ()),
    ("tools that are text", {"tools": "x"}, (400,), ()),
    ("a tool without a name", {"tools": [{"input_schema": {}}]}, (400,), ()),
    ("a tool without a schema", {"tools": [{"name": "f"}]}, EITHER, ()),
    ("a schema with a type that is none", {"tools": [{"name": "f", "input_schema": {"type": 1}}],
     "tool_choice": {"type": "any"}}, (400,), ("CVE-2025-48944",)),
    ("a choice that nobody knows", {"tool_choice": {"type": "perhaps"}}, (400,), ()),
    ("a choice that is text", {"tool_choice": "any"}, (400,), ()),
    ("a choice of a missing tool", {"tools": [{"name": "f", "input_schema": {"type": "object"}}],
     "tool_choice": {"type": "tool", "name": "g"}}, (400,), ()),
    ("thinking that is text", {"thinking": "x"}, (400,), ()),
    ("a budget of -1 to think", {"thinking": {"type": "enabled", "budget_tokens": -1}}, (400,), ()),
    ("metadata that is text", {"metadata": "x"}, (400,), ()),
    ("100,000 messages", {"messages": [USER] * 100_000}, (400,), ()),
    ("1,000,000 characters", {"messages": [{"role": "user", "content": "word " * 200_000}]}, (400,), ()),
    ("half a surrogate pair", {"messages": [{"role": "user", "content": "\ud83d"}]}, EITHER, ()),
    ("a template in the arguments", {"chat_template_kwargs": {"chat_template": "{% for i in range(10**9) %}"}},
     (400,), ("CVE-2026-115918",)),
)  # fmt: skip


def cases(model: str) -> list[Case]:
    found = []
    for name, fields, want, cve in TABLE:
        body = {"model": model, "messages": [USER], "max_tokens": 2, **fields}
        body = {k: v for k, v in body.items() if v is not None}
        found.append(case("anthropic", name, ROUTE, body, want, cve=cve))
    return found
