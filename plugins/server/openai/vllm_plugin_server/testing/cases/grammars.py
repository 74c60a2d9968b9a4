"""Structured outputs and tools' schemas: programs that the client writes and the server compiles."""

from __future__ import annotations

from typing import Any

from vllm_plugin_server.testing.case import Case, case
from vllm_plugin_server.testing.cases.good import good

__all__ = ["cases"]

EITHER = (200, 400)


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _wide(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}}


LOOP = {"$ref": "#"}
MUTUAL = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
TREE = {"$defs": {"t": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}},
        "$ref": "#/$defs/t"}  # fmt: skip

# (name, JSON schema, what may be answered, advisories)
SCHEMAS: tuple[tuple[str, Any, tuple[int, ...], tuple[str, ...]], ...] = (
    ("a type that nobody has", {"type": "wizard"}, (400,), ("CVE-2025-48942", "CVE-2025-48944")),
    ("a type that is a number", {"type": 1}, (400,), ("CVE-2025-48942", "CVE-2025-48944")),
    ("text", "x", (400,), ("CVE-2025-48942",)),
    ("a number", 1, (400,), ()),
    ("a list", [], (400,), ()),
    ("properties that are a list", {"type": "object", "properties": []}, (400,), ()),
    ("required that is text", {"type": "object", "required": "a"}, (400,), ()),
    ("an enum of nothing", {"enum": []}, (400,), ()),
    ("an enum of 100,000", {"enum": [f"value {i}" for i in range(100_000)]}, EITHER, ("CVE-2025-58446",)),
    ("a pattern that is none", {"type": "string", "pattern": "("}, (400,), ("CVE-2025-48944",)),
    ("a pattern that is a number", {"type": "string", "pattern": 1}, (400,), ("CVE-2025-48944",)),
    ("a pattern of (a{1,300}){300}", {"type": "string", "pattern": "(a{1,300}){300}"}, EITHER, ("CVE-2026-73556",)),
    ("itself", LOOP, EITHER, ("CVE-2025-57809",)),
    ("two that are each other", MUTUAL, EITHER, ("CVE-2025-57809",)),
    ("a tree", TREE, EITHER, ()),
    ("a reference to nothing", {"$ref": "#/$defs/none"}, (400,), ()),
    ("a reference to another host", {"$ref": "http://169.254.169.254/x.json"}, (400,), ()),
    ("a reference to a file", {"$ref": "file:///etc/passwd"}, (400,), ()),
    ("400 levels", _deep(400), EITHER, ("CVE-2026-25048",)),
    ("5,000 levels", None, EITHER, ("CVE-2026-25048",)),
    ("10,000 properties", _wide(10_000), EITHER, ()),
    ("1,000,000 letters", {"type": "string", "minLength": 1_000_000, "maxLength": 2_000_000}, EITHER, ()),
    ("a negative length", {"type": "string", "minLength": -1}, EITHER, ()),
    ("10^9 items", {"type": "array", "items": {"type": "integer"}, "minItems": 10**9}, EITHER, ()),
    ("a range of 2^70", {"type": "integer", "minimum": -(2**70), "maximum": 2**70}, EITHER, ()),
    ("a format of e-mail", {"type": "string", "format": "email", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}, EITHER,
     ("CVE-2024-3772",)),
)  # fmt: skip

# (name, structured_outputs, what may be answered, advisories)
OUTPUTS: tuple[tuple[str, Any, tuple[int, ...], tuple[str, ...]], ...] = (
    ("nothing", {}, EITHER, ()),
    ("text", "x", (400,), ()),
    ("two kinds", {"regex": "a", "choice": ["a"]}, (400,), ("CVE-2026-105757",)),
    ("a kind that nobody has", {"poem": True}, (400,), ("CVE-2026-105757",)),
    ("a regex that is none", {"regex": "[a"}, (400,), ("CVE-2025-48943",)),
    ("a regex that is a number", {"regex": 1}, (400,), ("CVE-2025-48943",)),
    ("a regex of (a{1,300}){300}", {"regex": "(a{1,300}){300}"}, EITHER, ("CVE-2026-55574", "CVE-2026-73556")),
    ("a regex of (a+)+b", {"regex": "(a+)+b"}, EITHER, ("CVE-2026-55574",)),
    ("a regex of 100,000 characters", {"regex": "a?" * 50_000}, EITHER, ("CVE-2026-55574",)),
    ("a regex of nested counts", {"regex": "((((a{0,99}){0,99}){0,99}){0,99}){0,99}"}, EITHER, ("CVE-2026-55574",)),
    ("a regex 2,000 levels deep", {"regex": "(" * 2000 + "a" + ")" * 2000}, EITHER, ("CVE-2026-55574",)),
    ("a regex that looks back", {"regex": "(?<=a)b\\1"}, EITHER, ()),
    ("no choices", {"choice": []}, (400,), ()),
    ("choices that are text", {"choice": "ab"}, (400,), ()),
    ("choices that are numbers", {"choice": [1, 2]}, (400,), ()),
    ("an empty choice", {"choice": [""]}, EITHER, ()),
    ("100,000 choices", {"choice": [f"c{i}" for i in range(100_000)]}, EITHER, ()),
    ("a grammar that is none", {"grammar": "root ::= ((("}, (400,), ("CVE-2025-48942",)),
    ("a grammar without a root", {"grammar": 'x ::= "a"'}, EITHER, ()),
    ("a grammar that is itself", {"grammar": "root ::= root"}, EITHER, ("CVE-2025-57809",)),
    ("a grammar that begins with itself", {"grammar": 'root ::= root "a" | "a"'}, EITHER, ("CVE-2025-57809",)),
    ("a grammar of 50,000 rules", {"grammar": "\n".join(["root ::= r0"] + [f'r{i} ::= "a" r{i + 1}' for i in
     range(50_000)] + ['r50000 ::= "a"'])}, EITHER, ("CVE-2026-25048",)),
    ("json_object that is no flag", {"json_object": "x"}, (400,), ()),
    ("a structural tag that is none", {"structural_tag": "{"}, (400,), ("CVE-2026-105757",)),
    ("a backend by name", {"json": {"type": "object"}, "backend": "outlines", "_backend": "x"}, (400,),
     ("CVE-2025-29770", "CVE-2025-69872")),
)  # fmt: skip

# (name, response_format, what may be answered)
FORMATS: tuple[tuple[str, Any, tuple[int, ...]], ...] = (
    ("text", "json", (400,)),
    ("an empty object", {}, (400,)),
    ("a type that nobody has", {"type": "xml"}, (400,)),
    ("a type that is a number", {"type": 1}, (400,)),
    ("a schema that is missing", {"type": "json_schema"}, (400,)),
    ("a schema that is text", {"type": "json_schema", "json_schema": "x"}, (400,)),
    ("a schema without a name", {"type": "json_schema", "json_schema": {"schema": {}}}, EITHER),
    ("a schema without a schema", {"type": "json_schema", "json_schema": {"name": "x"}}, EITHER),
    ("a name that is a number", {"type": "json_schema", "json_schema": {"name": 1, "schema": {}}}, (400,)),
)


def cases(model: str) -> list[Case]:
    chat = good(model)["/v1/chat/completions"]
    found = []
    for name, schema, want, cve in SCHEMAS:
        if schema is None:  # json.dumps is recursive, too
            text = b'{"type":"object","properties":{"a":' * 5_000 + b'{"type":"string"}' + b"}}" * 5_000
            found.append(case("schema", name, "/v1/chat/completions", _with_schema(model, text), want, cve=cve))
            continue
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        found.append(case("schema", name, "/v1/chat/completions", chat | {"response_format": wanted}, want, cve=cve))
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        body = chat | {"tools": tools, "tool_choice": "required"}
        # As a tool's: a server that finds the fault only while compiling may compile nothing for an unused tool.
        found.append(case("tool-schema", name, "/v1/chat/completions", body, tuple({*want, 400}), cve=cve))
    for route in ("/v1/completions", "/v1/chat/completions"):
        body = good(model)[route]
        for name, wanted, want, cve in OUTPUTS:
            sent = body | {"structured_outputs": wanted}
            found.append(case("structured", f"{route.removeprefix('/v1/')}: {name}", route, sent, want, cve=cve))
    found += [
        case("format", name, "/v1/chat/completions", chat | {"response_format": wanted}, want)
        for name, wanted, want in FORMATS
    ]
    return found


def _with_schema(model: str, schema: bytes) -> bytes:
    head = b'{"model":"%s","max_tokens":2,"messages":[{"role":"user","content":"Hi"}],' % model.encode()
    return head + b'"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":' + schema + b"}}}"
