"""What a prompt says of the reasoning to come: templates begin or end it for the model."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["BEGIN", "END", "left_open"]

BEGIN, END = "<think>", "</think>"


def left_open(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> bool | None:
    """Whether the answer that the prompt begins has its reasoning begun (True), ended (False), or neither.

    The last tag counts, and only if no special token comes after it: those are between turns, and
    what stands in a message, say the user's question about the tag, is not the answer's.
    """
    tags = [tokenizer.encode(tag, add_special_tokens=False) for tag in (BEGIN, END)]
    if all(len(tag) == 1 for tag in tags):
        (begin,), (end,) = tags
        last = next((i for i in reversed(range(len(prompt_ids))) if prompt_ids[i] in (begin, end)), None)
        if last is None:
            return None
        after = list(prompt_ids[last + 1 :])
        apart = tokenizer.decode(after, skip_special_tokens=True) != tokenizer.decode(after, skip_special_tokens=False)
        return None if apart else prompt_ids[last] == begin
    text = tokenizer.decode(list(prompt_ids), skip_special_tokens=False)
    at = max(text.rfind(BEGIN), text.rfind(END))
    if at < 0:
        return None
    tag = BEGIN if text.startswith(BEGIN, at) else END
    clean = tokenizer.decode(list(prompt_ids), skip_special_tokens=True)
    return (tag == BEGIN) if clean.endswith(text[at:]) else None
