"""A GGUF file as a checkpoint: the target of the weight format."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf import llama
from vllm_plugin_gguf.file import GgufFile
from vllm_plugin_gguf.source import GgufSource
from vllm_plugin_gguf.tokenizer import special_ids, tokenizer_files

ARCHITECTURES = {"llama": llama}
"""``general.architecture`` -> the module with its ``config`` and its ``names``."""


class GgufCheckpoint:
    """Opened with the path of a file, or of a folder that holds one."""

    def __init__(self, path: str):
        self.file = GgufFile(_find(Path(path)))
        name = self.file.metadata.get("general.architecture")
        if name not in ARCHITECTURES:
            raise CheckpointError(
                f"{self.file.path} holds a model of the GGUF architecture {name!r}; known: {', '.join(ARCHITECTURES)}\n"
                "  a checkpoint of the same model in safetensors may be served where this one is not"
            )
        if (count := self.file.metadata.get("split.count", 1)) > 1:
            raise CheckpointError(
                f"{self.file.path} is one of {count} parts of a model; merge them first (llama-gguf-split --merge)"
            )
        self._architecture = ARCHITECTURES[name]
        self.config: dict[str, Any] = self._architecture.config(self.file)
        ids = special_ids(self.file.metadata)
        self.generation_config: dict[str, Any] = {k: v for k, v in ids.items() if k != "unk_token_id"}
        self.config |= {k: v[0] if isinstance(v, list) else v for k, v in self.generation_config.items()}

    @cached_property
    def source(self) -> GgufSource:
        return GgufSource(self.file, self._architecture.names(self.file))

    @cached_property
    def tokenizer(self) -> TokenizerFiles | None:
        return tokenizer_files(self.file)


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [p for p in sorted(path.glob("*.gguf")) if not p.name.startswith("mmproj")]
    if len(found) != 1:
        raise CheckpointError(f"{path} should hold one GGUF file, not {len(found)}; name the file itself")
    return found[0]
