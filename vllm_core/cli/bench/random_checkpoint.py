"""A checkpoint with random weights for a folder with a config.json, written as fast as the disk takes it."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from vllm_core.cli.errors import UsageError

__all__ = ["write_checkpoint"]

SHARD = 8 << 30  # bytes of a file, at most (one tensor may be larger)
BLOCK = 16 << 20  # bytes that are drawn; weights repeat them
SPREAD = 0.02  # standard deviation of the weights
INDEX = "model.safetensors.index.json"
COPIED = (".json", ".jinja", ".txt", ".model", ".tiktoken")  # configuration and tokenizer

Shapes = Mapping[str, tuple[int, ...]]


def write_checkpoint(config: str | Path, folder: str | Path) -> int:
    """Write bfloat16 safetensors for the model of ``config``'s config.json to ``folder``; bytes.

    Its other configuration and its tokenizer are copied. A folder that was written for the same tensors stays as it is.
    """
    config, folder = Path(config), Path(folder)
    if not (config / "config.json").is_file():
        raise UsageError(f"{config} has no config.json, so there is no model to write weights for")
    if config.resolve() == folder.resolve():
        raise UsageError("--write-checkpoint names the folder of the model itself; name another")
    shapes = _shapes(config)
    total = sum(map(_size, shapes.values()))
    index = folder / INDEX
    if index.is_file() and json.loads(index.read_text()).get("metadata") == {"total_size": total, "random": True}:
        print(f"{folder} has such a checkpoint of {total / 1e9:.1f} GB already", file=sys.stderr)
        return total
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty, and does not hold this checkpoint\n  where   --write-checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) < total + BLOCK:
        raise UsageError(f"{folder} has {free / 1e9:.1f} GB free, and the checkpoint takes {total / 1e9:.1f}")
    for file in config.iterdir():
        if file.suffix in COPIED and not file.name.endswith(".index.json"):
            shutil.copy2(file, folder)
    shards = _shards(shapes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        _write(folder / name, shard)
    where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    # Last: an interrupted write leaves no index, and the folder is not taken for a whole checkpoint.
    index.write_text(json.dumps({"metadata": {"total_size": total, "random": True}, "weight_map": where}, indent=1))
    return total


def _shapes(config: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors, as transformers has them for this configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    read = AutoConfig.from_pretrained(config, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read)
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {}) if read.tie_word_embeddings else set()
    if read.tie_word_embeddings:
        tied.add("lm_head.weight")
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items() if name not in tied}
    if fused := next((name for name, shape in shapes.items() if "expert" in name and len(shape) > 2), ""):
        raise UsageError(
            f"no checkpoint can be written for {', '.join(read.architectures or [type(model).__name__])}.\n"
            f"  why     transformers keeps its experts in one tensor ({fused}), a checkpoint has them apart"
        )
    return shapes


def _size(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)


def _shards(shapes: Shapes) -> list[dict[str, tuple[int, ...]]]:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    full = 0
    for name, shape in shapes.items():
        if shards[-1] and full + _size(shape) > SHARD:
            shards.append({})
            full = 0
        shards[-1][name] = shape
        full += _size(shape)
    return shards


def _write(file: Path, shapes: Shapes) -> None:
    """A header and the tensors' bytes: drawn ones for matrices, ones for vectors, which scale."""
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + _size(shape)]}
        end += _size(shape)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    drawn, ones = memoryview(_drawn()), memoryview(b"\x80\x3f" * (1 << 20))
    with file.open("wb", buffering=0) as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for shape in shapes.values():
            left, block = _size(shape), drawn if len(shape) > 1 else ones
            while left:
                left -= out.write(block[:left])
        os.fsync(out.fileno())  # so that the page cache can be dropped


def _drawn() -> bytes:
    """BLOCK bytes of normal bfloat16 numbers."""
    import numpy as np

    numbers = np.random.default_rng(0).standard_normal(BLOCK // 2, dtype=np.float32) * np.float32(SPREAD)
    return (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
