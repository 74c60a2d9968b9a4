"""Fields of OpenAI's, Anthropic's and vLLM's schemas that are accepted and change nothing here, each with the reason.

An answer to a request that has some names them in the header ``x-vllm-core-ignored``.
"""

from __future__ import annotations

__all__ = ["IGNORED", "ignored_in"]

_NOTES = {
    "user": "nothing is kept by user",
    "safety_identifier": "nothing is kept by user",
    "metadata": "requests are not stored",
    "store": "requests are not stored",
    "service_tier": "there is one tier",
    "prompt_cache_key": "prefixes are found by their tokens; cache_salt keeps them apart",
    "prompt_cache_retention": "the prefix cache decides",
    "prompt_cache_options": "the prefix cache decides",
    "prediction": "drafts are the engine's (speculative_config)",
    "verbosity": "models are told by their prompt",
    "moderation": "there is no moderation",
}
_VLLM = {
    "length_penalty": "only beam search would read it",
    "early_stopping": "only beam search would read it",
    "kv_transfer_params": "there is one engine and no transfer of caches",
    "mm_processor_kwargs": "images, audio and video are not supported yet",
    "media_io_kwargs": "images, audio and video are not supported yet",
    "request_id": "ids are the server's own; the header X-Request-Id gives a label",
}

IGNORED: dict[str, dict[str, str]] = {
    "/v1/chat/completions": {
        **_NOTES,
        **_VLLM,
        "audio": "answers are text",
        "web_search_options": "the server searches nothing",
    },
    "/v1/completions": {**_NOTES, **_VLLM},
    "/tokenize": {"mm_processor_kwargs": _VLLM["mm_processor_kwargs"]},
    "/detokenize": {},
}
"""Route: field: why it changes nothing. Other routes of this and other packages add theirs."""


def ignored_in(route: str, names: object) -> list[str]:
    """Of the names in a request, those without effect."""
    table = IGNORED.get(route, {})
    return [name for name in names if name in table] if table else []  # type: ignore[attr-defined]
