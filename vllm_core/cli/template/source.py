"""What ``--from-config`` names: a config.json, alone or in the folder of a checkpoint with safetensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import attrs

from vllm_core.plugins.errors import PluginError

__all__ = ["Source", "read_source"]

INDEX = "model.safetensors.index.json"
MOST = 100 << 20  # bytes of a header; the format's own limit
NO_SHAPE: tuple[int, ...] = (-1,)
"""Of a tensor that only the index names: its file is not there."""


@attrs.frozen(kw_only=True)
class Source:
    """``tensors`` maps names to shapes; None: there is no checkpoint beside the configuration."""

    path: Path  # of the config.json
    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]] | None

    @property
    def architecture(self) -> str:
        return self.config["architectures"][0]


def read_source(text: str) -> Source:
    """`PluginError` says what a config.json lacks."""
    given = Path(text)
    path = given / "config.json" if given.is_dir() else given
    if not path.is_file():
        raise PluginError(f"--from-config {text}: there is no {path}.", instead="a config.json, or the folder it is in")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PluginError(f"{path} is no JSON.", why=str(error)) from None
    named = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(named, list) or not named or not isinstance(named[0], str) or not named[0].isidentifier():
        raise PluginError(
            f'{path} does not say "architectures", which is the name that the plugin serves.',
            instead='"architectures": ["MineForCausalLM"] in that file',
        )
    return Source(path=path, config=config, tensors=_tensors(path.parent) if given.is_dir() else None)


def _tensors(folder: Path) -> dict[str, tuple[int, ...]] | None:
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= _header(file)
    index = folder / INDEX
    if index.is_file():
        for name in json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}):
            found.setdefault(name, NO_SHAPE)
    return found or None


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes; nothing but the header is read."""
    with file.open("rb") as stream:
        head = stream.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < size <= MOST:
            raise PluginError(f"{file} is no safetensors file.", why=f"its header would have {size:,} bytes")
        try:
            header = json.loads(stream.read(size))
            return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PluginError(f"{file} is no safetensors file.", why=f"its header cannot be read: {error!r}") from None
