"""Prompts of text: recorded conversations, lines of a file, sonnets."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vllm_plugin_server.bench.ask import Sample
from vllm_plugin_server.bench.tokens import Tokens
from vllm_plugin_server.bench.words import LINES

__all__ = ["custom", "sharegpt", "sonnet"]

# Those of vLLM's benchmark: what is shorter or longer is left out.
SHORTEST = 4  # tokens
LONGEST_PROMPT = 1024
LONGEST = 2048  # prompt and answer

ASK = "Pick as many lines as you can from these poem lines:\n"


async def sharegpt(
    tokens: Tokens, chance: random.Random, *, path: str, count: int, output_len: int | None
) -> list[Sample]:
    """First question and answer of conversations in ShareGPT's JSON; ``output_len`` in place of the answer's length."""
    talks = list(_conversations(path))
    chance.shuffle(talks)
    found: list[Sample] = []
    for question, answer in talks:
        if len(found) == count:
            break
        length = len(await tokens.encode(question))
        wanted = output_len if output_len is not None else len(await tokens.encode(answer))
        if length < SHORTEST or (output_len is None and wanted < SHORTEST):
            continue
        if length <= LONGEST_PROMPT and length + wanted <= LONGEST:
            found.append(Sample(question, length, wanted))
    if not found:
        raise ValueError(
            f"{path}: none of {len(talks)} conversations has a question of {SHORTEST} to {LONGEST_PROMPT} tokens "
            f"and at most {LONGEST} with its answer"
        )
    return _repeated(found, count, chance)


def _conversations(path: str) -> Iterator[tuple[str, str]]:
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; ShareGPT's format is a list of objects") from None
    if not isinstance(entries, list):
        raise ValueError(f'{path} holds no list; ShareGPT\'s format is [{{"conversations": [{{"value": ...}}, ...]}}]')
    for entry in entries:
        turns = entry.get("conversations", entry.get("conversation")) if isinstance(entry, dict) else None
        if isinstance(turns, list) and len(turns) >= 2 and all(isinstance(t, dict) for t in turns[:2]):
            yield str(turns[0].get("value", "")), str(turns[1].get("value", ""))


async def custom(
    tokens: Tokens, chance: random.Random, *, path: str, count: int, output_len: int | None
) -> list[Sample]:
    """Lines of JSON with "prompt", and "output_tokens" where ``output_len`` is None."""
    found: list[Sample] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
            raise ValueError(f'{path}, line {number}: no object with a text "prompt"')
        wanted = output_len if output_len is not None else entry.get("output_tokens")
        if not isinstance(wanted, int) or wanted < 1:
            raise ValueError(f'{path}, line {number}: no "output_tokens"; --custom-output-len N is for all lines')
        found.append(Sample(entry["prompt"], len(await tokens.encode(entry["prompt"])), wanted))
    if not found:
        raise ValueError(f"{path} has no prompt")
    chance.shuffle(found)
    return _repeated(found, count, chance)


async def sonnet(
    tokens: Tokens,
    chance: random.Random,
    *,
    path: str | None,
    count: int,
    input_len: int,
    prefix_len: int,
    output_len: int,
) -> list[Sample]:
    """Lines of a poem in random order; the first lines, about ``prefix_len`` tokens, are those of all prompts."""
    lines = [f"{line}\n" for line in (Path(path).read_text(encoding="utf-8").splitlines() if path else LINES) if line]
    if not lines:
        raise ValueError(f"{path} has no line")
    base = len(await tokens.encode(ASK))
    if not base <= prefix_len <= input_len:
        raise ValueError(f"--sonnet-prefix-len must be from {base} tokens, those of the question, to {input_len}")
    average = len(await tokens.encode("".join(lines))) / len(lines)  # tokens a line
    shared = chance.choices(lines, k=round((prefix_len - base) / average))
    rest = max(0, round((input_len - base) / average) - len(shared))
    found = []
    for _ in range(count):
        prompt = ASK + "".join(shared + chance.choices(lines, k=rest))
        found.append(Sample(prompt, len(await tokens.encode(prompt)), output_len))
    return found


def _repeated(found: list[Sample], count: int, chance: random.Random) -> list[Sample]:
    """As many as wanted: the first, or all and then some again."""
    more: Sequence[Sample] = chance.choices(found, k=max(0, count - len(found)))
    return [*found[:count], *more]
