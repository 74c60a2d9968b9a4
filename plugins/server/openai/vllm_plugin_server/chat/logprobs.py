"""Log-probabilities in the shape of chats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_core.serving import Logprob

__all__ = ["chat_logprobs", "finite", "prompt_logprobs", "token_text"]

LOWEST = -9999.0  # JSON has no infinity


def finite(value: float) -> float:
    return max(value, LOWEST)


def token_text(token: int, logprob: Logprob, as_ids: bool) -> str:
    return f"token_id:{token}" if as_ids else logprob.decoded_token or ""


def _entry(token: int, logprob: Logprob, as_ids: bool) -> dict[str, Any]:
    text = token_text(token, logprob, as_ids)
    return {"token": text, "logprob": finite(logprob.logprob), "bytes": list(text.encode("utf-8", "replace"))}


def chat_logprobs(positions: Sequence[Mapping[int, Logprob]], top: int, as_ids: bool) -> dict[str, Any]:
    """``top``: how many of the likeliest are told beside the token that came; -1: all."""
    content = []
    for position in positions:
        token, logprob = next(iter(position.items()))
        ranked = sorted(position.items(), key=lambda item: item[1].rank or 0)
        likeliest = [item for item in ranked if top < 0 or (item[1].rank or 0) <= top]
        content.append({**_entry(token, logprob, as_ids), "top_logprobs": [_entry(t, p, as_ids) for t, p in likeliest]})
    return {"content": content, "refusal": None}


def prompt_logprobs(positions: Sequence[Mapping[int, Logprob] | None] | None) -> list[dict[str, Any] | None] | None:
    """As vLLM gives them: by token id; the first token has none."""
    if positions is None:
        return None
    return [
        None
        if position is None
        else {
            str(token): {"logprob": finite(p.logprob), "rank": p.rank, "decoded_token": p.decoded_token}
            for token, p in position.items()
        }
        for position in positions
    ]
