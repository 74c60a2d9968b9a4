"""``response_format`` of a request: what its answer must conform to, as the engine's structured outputs."""

from __future__ import annotations

from typing import Any

import msgspec

from vllm_plugin_server.chat.wire import ResponseFormat
from vllm_plugin_server.errors import bad_request

__all__ = ["format_of", "take_format"]


def take_format(fields: dict[str, Any], given: ResponseFormat | None) -> None:
    """Put it among the fields of ``SamplingParams``."""
    form = None if given is None else format_of(given)
    if form is None:
        return
    if "structured_outputs" in fields:
        raise bad_request("response_format and structured_outputs exclude each other", "response_format")
    fields["structured_outputs"] = form


def format_of(given: ResponseFormat) -> dict[str, Any] | None:
    """As structured outputs; None: any text."""
    if given.type == "text":
        return None
    if given.type == "json_object":
        return {"json_object": True}
    if given.type == "json_schema":
        if given.json_schema is None or given.json_schema.schema is None:
            raise bad_request("response_format of type json_schema needs json_schema.schema", "response_format")
        schema = given.json_schema.schema
        if isinstance(schema, bool):
            raise bad_request("response_format.json_schema.schema must be an object", "response_format")
        return {"json": schema}
    if given.type == "structural_tag":
        return {"structural_tag": msgspec.json.encode(given).decode()}
    raise bad_request(
        f"response_format.type must be text, json_object, json_schema or structural_tag, not {given.type[:40]!r}",
        "response_format.type",
    )
