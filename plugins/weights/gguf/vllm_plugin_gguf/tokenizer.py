"""The tokenizer of a GGUF file, as the content of a tokenizer.json and a tokenizer_config.json."""

from __future__ import annotations

import json

from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.byte_bpe import byte_bpe
from vllm_plugin_gguf.file import GgufFile
from vllm_plugin_gguf.sentencepiece import sentencepiece
from vllm_plugin_gguf.special_tokens import PREFIX, tokenizer_settings

_REMEDY = "  take the tokenizer of the same model from elsewhere: --tokenizer FOLDER-OR-HUB-ID"
_KINDS = {"gpt2": byte_bpe, "llama": sentencepiece}


def tokenizer_files(file: GgufFile) -> TokenizerFiles | None:
    """None if the file holds no vocabulary."""
    m = file.metadata
    if f"{PREFIX}tokens" not in m:
        return None
    model = m.get(f"{PREFIX}model")
    if model not in _KINDS:
        raise CheckpointError(
            f"{file.path} has a tokenizer of the kind {model!r}; read are: gpt2 (byte-level BPE), llama"
            f" (SentencePiece's BPE)\n{_REMEDY}"
        )
    content = _KINDS[model](m, file.path, _REMEDY)
    return TokenizerFiles(tokenizer_json=json.dumps(content, ensure_ascii=False), settings=tokenizer_settings(m))
