"""A tiny checkpoint with random weights, a tokenizer whose tokens are bytes, and a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["END", "save_checkpoint"]

START, END = "<|start|>", "<|end|>"
TEMPLATE = (
    "{%- for message in messages %}" + START + "{{ message.role }}\n{{ message.content }}" + END + "\n{% endfor %}"
    "{%- if add_generation_prompt %}" + START + "assistant\n{% endif %}"
)


def save_checkpoint(folder: Path, architecture: str, config: Mapping[str, Any], longest: int = 512) -> Path:
    """``config``: fields of transformers' config, less the vocabulary's. ``longest``: tokens of a sequence."""
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from vllm_core.testing.reference import Reference

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in (START, END)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, chat_template=TEMPLATE)
    fields = {
        **config, "vocab_size": len(fast), "max_position_embeddings": longest, "eos_token_id": fast.eos_token_id,
        "bos_token_id": None,
    }  # fmt: skip
    Reference(getattr(transformers, architecture), fields).save(folder)
    fast.save_pretrained(folder)
    return folder
