"""Tokenizers from metadata: the ids that transformers' own tokenizers give for the same vocabulary and merges."""

from __future__ import annotations

import json

import pytest
from gguf_writing import finish, llama_writer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from vllm_plugin_gguf.checkpoint import GgufCheckpoint

from vllm_core.weights import CheckpointError

TEXTS = [
    "In 2024, Zoë's 3 cats  ate 1234567 fish.\n\tüñí",
    " leading", "trailing  ", "  two   three    ", "\n\n\n", "\r\n\r\n x", "a\tb\t\tc", "\u00a0nbsp\u3000wide",
    "I'll they've WE'RE don't DON'T can'T 'tis", "猫が好き 日本語123", "😀👩‍👩‍👧🏽", "e\u0301 a\u0301 ﬁ Å",
    "١٢٣ ½ Ⅳ 10²",
    "def f(x):\n    return x**2  # ok\n", "https://a.b/c?d=e&f=1000", "<|end|>x<|end|>", "<|tool|> <|end|>\n", "",
]  # fmt: skip
SPECIAL = ["<|begin|>", "<|end|>"]
ADDED = ["<|tool|>"]


@pytest.fixture(scope="module")
def parts():
    """Tokens and merges learnt without any cutting of numbers, so that every way to cut shows in the ids."""
    corpus = ["the cat sat on the mat 123 1234 12345 2024 2024 00000 it's they'll don't DON'T  \n\n  x\n\n y\t\tz"] * 20
    corpus += [t for t in TEXTS for _ in range(5)]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=1
    )
    learner.train_from_iterator(corpus, trainer)
    model = json.loads(learner.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [tuple(m) for m in model["merges"]]


def written(path, parts, pre, change=lambda w: None):
    tokens, merges = parts
    all_tokens = [*tokens, *SPECIAL, *ADDED]
    w = llama_writer(path, vocab=len(all_tokens))
    w.add_tokenizer_model("gpt2")
    if pre is not None:
        w.add_tokenizer_pre(pre)
    w.add_token_list(all_tokens)
    w.add_token_types([1] * len(tokens) + [3] * len(SPECIAL) + [4] * len(ADDED))
    w.add_token_merges([" ".join(m) for m in merges])
    w.add_bos_token_id(len(tokens))
    w.add_eos_token_id(len(tokens) + 1)
    change(w)
    finish(w)
    return GgufCheckpoint(str(path)).tokenizer


def reference(pre, parts):
    """transformers' tokenizer of a family that is cut this way."""
    from transformers import AddedToken, GPT2Tokenizer, Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import TikTokenConverter

    tokens, merges = parts
    vocab = {t: i for i, t in enumerate([*tokens, *SPECIAL, *ADDED])}
    if pre == "llama-bpe":

        class Converter(TikTokenConverter):
            def extract_vocab_merges_from_model(self, _):
                return vocab, merges

        made = Converter(vocab_file="none").converted()
        made.post_processor = processors.ByteLevel(trim_offsets=False)  # adds no token
    else:
        family = Qwen2Tokenizer if pre == "qwen2" else GPT2Tokenizer
        hf = family(vocab=vocab, merges=merges, unk_token=None, bos_token=None, eos_token=None, pad_token=None)
        made = hf.backend_tokenizer
        if pre == "smollm":  # HuggingFaceTB/SmolLM2-135M-Instruct, tokenizer.json: digits, then GPT-2
            made.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
    made.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    made.add_tokens([AddedToken(t, normalized=False) for t in ADDED])
    return made


@pytest.mark.parametrize("pre", ["gpt-2", "default", "smollm", "llama-bpe", "qwen2"])
def test_tricky_texts_give_the_ids_of_transformers(tmp_path, parts, pre):
    ours = Tokenizer.from_str(
        written(tmp_path / "m.gguf", parts, pre, lambda w: w.add_add_bos_token(False)).tokenizer_json
    )
    theirs = reference(pre, parts)

    for text in TEXTS:
        assert ours.encode(text).tokens == theirs.encode(text).tokens, text
        ids = ours.encode(text).ids
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids, skip_special_tokens=False)


SHARED = [
    "llama3",
    "llama-bpe",
    "falcon3",
    "pixtral",
    "dbrx",
    "smaug-bpe",
    "tekken",
    "qwen2",
    "megrez",
    "gpt-4o",
    "llama4",
]


@pytest.mark.parametrize("pre", SHARED)
def test_texts_are_cut_as_by_transformers_own_reading_of_such_files(tmp_path, parts, pre):
    from transformers.integrations.gguf import convert_gguf_tokenizer

    tokens, merges = parts
    content = {"tokenizer_type": "gpt2", "pre_tokenizer_type": pre, "tokens": tokens}
    theirs, _ = convert_gguf_tokenizer("llama", content | {"merges": [" ".join(m) for m in merges]})
    ours = Tokenizer.from_str(written(tmp_path / "m.gguf", parts, pre).tokenizer_json)

    cased = "HTMLParser camelCase XMLs' ÀÉ éÀ'S don'T a/b//c /\n12345 ½ \u01c5x"
    for text in [*TEXTS, cased]:
        assert ours.pre_tokenizer.pre_tokenize_str(text) == theirs.pre_tokenizer.pre_tokenize_str(text), text


def test_the_cuts_differ_from_each_other(tmp_path, parts):
    """Else the test above would prove little."""
    ids = set()
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"):
        made = Tokenizer.from_str(written(tmp_path / f"{pre}.gguf", parts, pre).tokenizer_json)
        ids.add(str([made.encode(t, add_special_tokens=False).ids for t in TEXTS]))

    assert len(ids) == 6


def test_special_tokens_are_never_split_and_skipped_on_demand(tmp_path, parts):
    made = Tokenizer.from_str(written(tmp_path / "m.gguf", parts, "qwen2").tokenizer_json)
    n = len(parts[0])

    ids = made.encode("<|end|>the<|tool|>").ids
    assert (ids[0], ids[-1]) == (n + 1, n + 2)
    assert made.decode(ids, skip_special_tokens=True) == "the<|tool|>"  # user-defined tokens are text


@pytest.mark.parametrize(
    ("pre", "change", "before", "after"),
    [
        ("llama-bpe", lambda w: None, ["<|begin|>"], []),
        ("llama-bpe", lambda w: w.add_add_bos_token(False), [], []),
        ("qwen2", lambda w: None, [], []),
        ("gpt-2", lambda w: (w.add_add_bos_token(True), w.add_add_eos_token(True)), ["<|begin|>"], ["<|end|>"]),
    ],
)
def test_a_text_begins_and_ends_as_the_file_says(tmp_path, parts, pre, change, before, after):
    made = Tokenizer.from_str(written(tmp_path / "m.gguf", parts, pre, change).tokenizer_json)

    plain = made.encode("the cat", add_special_tokens=False).tokens
    assert made.encode("the cat").tokens == [*before, *plain, *after]


def test_settings_name_special_tokens_template_and_length(tmp_path, parts):
    settings = written(tmp_path / "m.gguf", parts, "qwen2", lambda w: w.add_chat_template("{{ x }}")).settings

    assert settings["bos_token"] == "<|begin|>"
    assert settings["eos_token"] == "<|end|>"
    assert settings["chat_template"] == "{{ x }}"
    assert settings["model_max_length"] == 256


@pytest.mark.parametrize(
    ("pre", "change", "message"),
    [
        ("viking", lambda w: None, "pre-tokenizer 'viking'; known: gpt-2, default, .*qwen2"),
        (None, lambda w: None, "does not say how text is split"),
    ],
)
def test_an_unknown_pre_tokenizer_is_named_with_those_known(tmp_path, parts, pre, change, message):
    with pytest.raises(CheckpointError, match=message) as e:
        written(tmp_path / "m.gguf", parts, pre, change)
    assert "--tokenizer" in str(e.value)


def test_another_kind_of_tokenizer_is_refused_by_name(tmp_path):
    w = llama_writer(tmp_path / "m.gguf")
    w.add_tokenizer_model("t5")
    w.add_token_list(["a", "b"])
    finish(w)

    with pytest.raises(CheckpointError, match=r"kind 't5'; read are: gpt2 \(byte-level BPE\), llama"):
        _ = GgufCheckpoint(str(tmp_path / "m.gguf")).tokenizer


def test_a_file_without_vocabulary_has_no_tokenizer(tmp_path):
    finish(llama_writer(tmp_path / "m.gguf"))

    assert GgufCheckpoint(str(tmp_path / "m.gguf")).tokenizer is None


@pytest.mark.slow
def test_smollm2s_chat_prompt_is_the_published_one(smollm2):
    from transformers import PreTrainedTokenizerFast

    files = GgufCheckpoint(smollm2).tokenizer
    hf = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(files.tokenizer_json), **files.settings)

    messages = [{"role": "user", "content": "What is 12 + 3?"}]
    text = hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is 12 + 3?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = hf(text).input_ids
    assert ids[:3] == [1, 9690, 198]  # <|im_start|>, system, newline
    assert hf.convert_ids_to_tokens(hf("1234").input_ids) == ["1", "2", "3", "4"]
    assert hf.decode(ids) == text


@pytest.mark.slow
def test_smollm2s_tokenizer_equals_transformers_own_reading_of_the_file(smollm2):
    from pathlib import Path

    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(Path(smollm2).parent), gguf_file=Path(smollm2).name)
    ours = Tokenizer.from_str(GgufCheckpoint(smollm2).tokenizer.tokenizer_json)

    # Its reader does not know the pre-tokenizer "smollm": numbers are left out of the comparison.
    for text in [t for t in TEXTS if not any(c.isnumeric() for c in t)]:
        assert ours.encode(text).ids == theirs(text, add_special_tokens=False).input_ids, text
