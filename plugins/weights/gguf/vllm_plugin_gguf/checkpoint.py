"""A GGUF file as a checkpoint: the targets of the weight format."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.architectures import architecture_of
from vllm_plugin_gguf.dequantize import OWN, PLAIN, Type, refuse_unreadable
from vllm_plugin_gguf.fields import Fields
from vllm_plugin_gguf.parts import open_model
from vllm_plugin_gguf.source import GgufSource, kept_modules
from vllm_plugin_gguf.special_tokens import special_ids
from vllm_plugin_gguf.tokenizer import tokenizer_files


class GgufCheckpoint:
    """Opened with the path of a file, or of a folder that holds one model."""

    def __init__(self, path: str):
        self.file = open_model(Path(path))
        for name, tensor in self.file.tensors.items():
            refuse_unreadable(name, tensor.type, self.file.path)
        arch, record = architecture_of(self.file)
        self.config: dict[str, Any] = record.config(Fields(self.file, arch))
        self._tables = record.tables
        self._names = record.names(self.file, self.config)
        ids = special_ids(self.file.metadata)
        self.generation_config: dict[str, Any] = {k: v for k, v in ids.items() if k != "unk_token_id"}
        self.config |= {k: v[0] if isinstance(v, list) else v for k, v in self.generation_config.items()}
        self.kept: dict[str, Type] = {}

    @cached_property
    def source(self) -> GgufSource:
        return GgufSource(self._names, self.kept)

    @cached_property
    def tokenizer(self) -> TokenizerFiles | None:
        return tokenizer_files(self.file)


class KeptGgufCheckpoint(GgufCheckpoint):
    """The same with matrices in the file's own blocks, for `vllm_plugin_gguf.kept.GgufQuantization`."""

    def __init__(self, path: str):
        super().__init__(path)
        self.kept = kept_modules(self._names, self._tables)
        for module, kind in self.kept.items():
            if kind not in OWN and kind not in PLAIN:
                raise CheckpointError(
                    f"{self.file.path}: {module} is of GGUF type {kind.name}, which cannot be kept in blocks; kept are"
                    f' {", ".join(t.name for t in [*PLAIN, *OWN])}\n  instead [plugin.gguf] weights = "dequantize"'
                    " (--plugin.gguf.weights dequantize)"
                )
        self.config["quantization_config"] = {
            "quant_method": "gguf",
            "types": {module: kind.name for module, kind in self.kept.items()},
        }
