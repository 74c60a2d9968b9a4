"""/v1/responses: inputs, items, stored answers."""

from __future__ import annotations

from typing import Any

from vllm_plugin_server.testing.case import Case, case

__all__ = ["cases"]

ROUTE = "/v1/responses"
EITHER = (200, 400)
LOOP = "{% for i in range(10**9) %}{% endfor %}"

# (name, fields, what may be answered, advisories)
TABLE: tuple[tuple[str, dict[str, Any], tuple[int, ...], tuple[str, ...]], ...] = (
    ("no input", {"input": None}, (400,), ()),
    ("a number", {"input": 1}, (400,), ()),
    ("an object", {"input": {}}, (400,), ()),
    ("an empty list", {"input": []}, (400,), ()),
    ("empty text", {"input": ""}, EITHER, ()),
    ("numbers", {"input": [1]}, (400,), ()),
    ("an empty item", {"input": [{}]}, (400,), ()),
    ("an item of an unknown type", {"input": [{"type": "dream"}]}, (400,), ()),
    ("a message without content", {"input": [{"role": "user"}]}, (400,), ()),
    ("a message with a number", {"input": [{"role": "user", "content": 1}]}, (400,), ()),
    ("a part of an unknown type", {"input": [{"role": "user", "content": [{"type": "x"}]}]}, (400,), ()),
    ("an image from inside", {"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "http://169.254.169.254/"}]}]}, (400,), ("CVE-2025-6242",)),
    ("a file of this machine", {"input": [{"role": "user", "content": [
        {"type": "input_file", "file_url": "file:///etc/passwd"}]}]}, (400,), ("CVE-2026-34753",)),
    ("a call's output without a call", {"input": [{"type": "function_call_output", "call_id": 1, "output": 2}]},
     (400,), ()),
    ("100,000 items", {"input": [{"role": "user", "content": "x"}] * 100_000}, (400,), ()),
    ("1,000,000 characters", {"input": "word " * 200_000}, (400,), ()),
    ("half a surrogate pair", {"input": "\ud83d"}, EITHER, ()),
    ("instructions that are a number", {"instructions": 1}, (400,), ()),
    ("a previous answer that nobody has", {"previous_response_id": "resp_none"}, (400, 404), ()),
    ("a previous answer that is a path", {"previous_response_id": "../../etc/passwd"}, (400, 404), ()),
    ("a previous answer that is a number", {"previous_response_id": 1}, (400,), ()),
    ("store that is no flag", {"store": "x"}, (400,), ()),
    ("background work", {"background": "x"}, (400,), ()),
    ("tools that are text", {"tools": "x"}, (400,), ()),
    ("a tool that nobody has", {"tools": [{"type": "teleport"}]}, (400,), ()),
    ("a tool without a name", {"tools": [{"type": "function"}]}, (400,), ()),
    ("a tool with a type that is none", {"tools": [{"type": "function", "name": "f", "parameters": {"type": 1}}],
     "tool_choice": "required"}, (400,), ("CVE-2025-48944",)),
    ("a tool on another host", {"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:1"}]},
     (400,), ("CVE-2026-42271",)),
    ("a choice without tools", {"tool_choice": "required"}, (400,), ()),
    ("a choice that nobody knows", {"tool_choice": "perhaps"}, (400,), ()),
    ("a format that is text", {"text": {"format": "json"}}, (400,), ()),
    ("a format that nobody has", {"text": {"format": {"type": "xml"}}}, (400,), ()),
    ("a schema that is none", {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "x"}}}},
     (400,), ("CVE-2025-48942",)),
    ("reasoning that is text", {"reasoning": "x"}, (400,), ()),
    ("include that is text", {"include": "x"}, (400,), ()),
    ("truncation that nobody has", {"truncation": "x"}, (400,), ()),
    ("top_logprobs as text", {"top_logprobs": "x"}, (400,), ()),
    ("a template in the arguments", {"chat_template_kwargs": {"chat_template": LOOP}}, (400,), ("CVE-2026-115918",)),
    ("a prompt of the platform's", {"prompt": {"id": "pmpt_x"}}, (400,), ()),
    ("max_tool_calls as text", {"max_tool_calls": "x"}, (400,), ()),
    ("metadata that is text", {"metadata": "x"}, (400,), ()),
)  # fmt: skip


def cases(model: str) -> list[Case]:
    found = []
    for name, fields, want, cve in TABLE:
        body = {"model": model, "input": "Hi", "max_output_tokens": 16, **fields}
        if fields == {"input": None}:
            del body["input"]
        found.append(case("responses", name, ROUTE, body, want, cve=cve))
    for name, target in (
        ("an answer that nobody has", f"{ROUTE}/resp_none"),
        ("an answer that is a path", f"{ROUTE}/..%2f..%2fetc%2fpasswd"),
        ("an answer with a NUL", f"{ROUTE}/a%00b"),
        ("an answer of 10,000 letters", f"{ROUTE}/{'x' * 10_000}"),
    ):
        for method in ("GET", "DELETE"):
            found.append(
                Case(
                    group="responses",
                    name=f"{method} {name}",
                    method=method,
                    target=target,
                    want=(400, 404, 405, 414),
                    needs=ROUTE,
                )
            )
    cancel = f"{ROUTE}/resp_none/cancel"
    found.append(
        Case(group="responses", name="cancel of nothing", target=cancel, want=(400, 404, 405), body=b"", needs=ROUTE)
    )
    return found
