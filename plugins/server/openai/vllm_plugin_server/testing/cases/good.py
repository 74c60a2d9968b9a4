"""The smallest request that each route answers well; what is hostile differs from it in one thing."""

from __future__ import annotations

from typing import Any

__all__ = ["SAMPLED", "good"]

SAMPLED = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")  # routes that generate

_HELLO = [{"role": "user", "content": "Hello"}]


def good(model: str) -> dict[str, dict[str, Any]]:
    """Body by route."""
    return {
        "/v1/completions": {"model": model, "prompt": "Hello", "max_tokens": 2},
        "/v1/chat/completions": {"model": model, "messages": _HELLO, "max_tokens": 2},
        "/v1/responses": {"model": model, "input": "Hello", "max_output_tokens": 16},
        "/v1/messages": {"model": model, "messages": _HELLO, "max_tokens": 2},
        "/tokenize": {"model": model, "prompt": "Hello"},
        "/detokenize": {"model": model, "tokens": [1, 2]},
    }
