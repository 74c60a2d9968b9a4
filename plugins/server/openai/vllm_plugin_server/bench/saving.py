"""Result files: vLLM's names and keys."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["file_name", "head", "pairs", "save"]

# Of every request; left out of files unless they are asked for.
DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts",
           "errors")  # fmt: skip


def pairs(words: list[str] | None, flag: str) -> dict[str, str]:
    """``KEY=VALUE`` words."""
    found = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{flag} {word!r} is no KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def head(
    *, date: str, backend: str, label: str | None, model_id: str, tokenizer_id: str | None, num_prompts: int,
    rate: float, burstiness: float, max_concurrency: int | None, metadata: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    return {
        "date": date, "endpoint_type": backend, "backend": backend, "label": label, "model_id": model_id,
        "tokenizer_id": tokenizer_id, "num_prompts": num_prompts, **metadata,
        "request_rate": "inf" if math.isinf(rate) else rate, "burstiness": burstiness,
        "max_concurrency": max_concurrency,
    }  # fmt: skip


def file_name(result: Mapping[str, Any], *, folder: str | None, given: str | None) -> Path:
    """As vLLM names them: LABEL-RATEqps[-concurrencyN]-MODEL-DATE.json."""
    label = result["label"] or result["backend"]
    concurrency = "" if result["max_concurrency"] is None else f"-concurrency{result['max_concurrency']}"
    model = str(result["model_id"]).rsplit("/", 1)[-1]
    made = f"{label}-{result['request_rate']}qps{concurrency}-{model}-{result['date']}.json"
    path = Path(folder or ".") / (given or made)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save(path: Path, result: Mapping[str, Any], *, detailed: bool, append: bool) -> None:
    kept = {k: v for k, v in result.items() if detailed or k not in DETAILS}
    text = json.dumps(kept)
    if append:
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if file.tell() else "") + text)
        return
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
