"""Small real tokenizers of the two common families, trained on a few lines."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vllm_core.engine.tokenizer import HFTokenizer

TEXT = [
    "The capital of France is Paris. The quick brown fox jumps over the lazy dog, again and again.",
    "Stop words, stop strings and stop tokens end a request; \n\n new lines and  double spaces too.",
    "Größe, naïve, мир, 你好，世界, 안녕, 👋🏽 🇫🇷 end.",
]
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + m['role']) }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _wrap(rust: Tokenizer) -> HFTokenizer:
    hf = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token="</s>", bos_token="<s>", chat_template=CHATML)
    return HFTokenizer(hf)


@cache
def byte_level() -> HFTokenizer:
    """As GPT-2, Llama 3, Qwen: every token is a run of bytes."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False),
    )
    return _wrap(rust)


@cache
def byte_fallback() -> HFTokenizer:
    """As Llama 2: "▁" for spaces, the first one dropped, bytes for what the vocabulary lacks."""
    alphabet = sorted(set("".join(TEXT[:2]).replace(" ", "▁")))
    vocab = {t: i for i, t in enumerate(["<unk>", *[f"<0x{i:02X}>" for i in range(256)], *alphabet])}
    merges = []
    for word in ("▁the", "▁stop", "▁again", "▁request"):
        for end in range(2, len(word) + 1):
            left, right = word[: end - 1], word[end - 1]
            if left + right not in vocab:
                vocab[left + right] = len(vocab)
                merges.append((left, right))
    rust = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rust.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    rust.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    return _wrap(rust)
