"""Log-probabilities in the shape of completions: parallel lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vllm_core.serving import Logprob
from vllm_plugin_server.chat.logprobs import finite, token_text

__all__ = ["completion_logprobs"]


def completion_logprobs(
    ids: Sequence[int],
    positions: Sequence[Mapping[int, Logprob] | None],
    offset: int,
    decode: Callable[..., str],
    as_ids: bool = False,
) -> tuple[dict[str, Any], int]:
    """The lists, and ``offset``, the characters before them, as it is behind them.

    ``positions[i]`` belongs to ``ids[i]``; None where nothing comes before.
    """
    found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token, position in zip(ids, positions, strict=True):
        if position is None:
            text = f"token_id:{token}" if as_ids else decode([token], skip_special_tokens=False)
            own, top = None, None
        else:
            text, own = token_text(token, position[token], as_ids), finite(position[token].logprob)
            top = {}
            # Two tokens may have one text: the likelier one has it here.
            for other, logprob in sorted(position.items(), key=lambda item: -item[1].logprob):
                top.setdefault(token_text(other, logprob, as_ids), finite(logprob.logprob))
        found["tokens"].append(text)
        found["token_logprobs"].append(own)
        found["top_logprobs"].append(top)
        found["text_offset"].append(offset)
        offset += len(text)
    return found, offset
