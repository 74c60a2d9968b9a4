"""The requests of a measurement: seeded random token ids, or prompts of a file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from vllm_core.cli.errors import UsageError

__all__ = ["Workload", "from_file", "random_workload"]

FIRST = 100  # ids below are special tokens in most vocabularies


@attrs.frozen
class Workload:
    """Requests that can be made again with other random ids, so that no run finds another's cache."""

    output_lens: list[int]  # tokens, a prompt each
    prompts: Callable[[int], list[list[int]]]  # of run 0, 1, ...
    facts: dict[str, Any]  # for the result


def random_workload(
    num_prompts: int,
    input_len: int,
    output_len: int,
    *,
    vocab_size: int,
    seed: int = 0,
    range_ratio: float = 0.0,
    prefix_len: int = 0,
) -> Workload:
    """Prompts of ``prefix_len`` common and ``input_len`` own random ids.

    range_ratio   lengths are drawn from length * (1 - ratio) to length * (1 + ratio)
    """
    draw = random.Random(seed)
    first = FIRST if vocab_size > 2 * FIRST else 0

    def length(mean: int) -> int:
        return max(1, draw.randint(round(mean * (1 - range_ratio)), round(mean * (1 + range_ratio))))

    inputs, outputs = zip(*[(length(input_len), length(output_len)) for _ in range(num_prompts)], strict=True)

    def prompts(run: int) -> list[list[int]]:
        ids = random.Random(f"{seed}/{run}")
        prefix = [ids.randrange(first, vocab_size) for _ in range(prefix_len)]
        return [prefix + [ids.randrange(first, vocab_size) for _ in range(n)] for n in inputs]

    facts = {
        "dataset": "random", "num_prompts": num_prompts, "input_len": input_len, "output_len": output_len,
        "range_ratio": range_ratio, "prefix_len": prefix_len, "vocab_size": vocab_size, "seed": seed,
    }  # fmt: skip
    return Workload(list(outputs), prompts, facts)


def from_file(path: Path, num_prompts: int, output_len: int, encode: Callable[[str], list[int]]) -> Workload:
    """The first ``num_prompts`` prompts of a file; every run has the same."""
    ids = [encode(entry) if isinstance(entry, str) else entry for entry in _entries(path)[:num_prompts]]
    facts = {"dataset": "custom", "path": str(path), "num_prompts": len(ids), "output_len": output_len}
    return Workload([output_len] * len(ids), lambda run: ids, facts)


def _entries(path: Path) -> list[Any]:
    """Texts and lists of token ids. .json: a list; .jsonl: one a line; anything else: a line is a text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}\n  where   --dataset-path") from None
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        if path.suffix == ".json":
            found = json.loads(text)
        elif path.suffix == ".jsonl":
            found = [json.loads(line) for line in lines]
        else:
            found = lines
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not valid {path.suffix[1:].upper()}: {error}\n  where   --dataset-path") from None
    entries = [_entry(path, i, entry) for i, entry in enumerate(found)] if isinstance(found, list) else []
    if not entries:
        raise UsageError(f"{path} holds no list of prompts\n  where   --dataset-path")
    return entries


def _entry(path: Path, index: int, entry: Any) -> Any:
    if isinstance(entry, dict):
        entry = entry.get("prompt_token_ids", entry.get("prompt"))
    if isinstance(entry, str) and entry:
        return entry
    if isinstance(entry, list) and entry and all(type(token) is int for token in entry):
        return entry
    raise UsageError(
        f"entry {index} of {path} is no prompt.\n"
        '  known   a text, {"prompt": text}, a list of token ids, or {"prompt_token_ids": [...]}\n'
        "  where   --dataset-path"
    )
