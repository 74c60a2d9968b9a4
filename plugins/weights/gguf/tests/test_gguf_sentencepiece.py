"""SentencePiece's BPE from tokens and scores: ids of a plain transcription of its algorithm, and of transformers."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from gguf_writing import finish, llama_writer
from tokenizers import Tokenizer, models, trainers
from vllm_plugin_gguf.checkpoint import GgufCheckpoint

from vllm_core.weights import CheckpointError

SPACE = "\u2581"
TEXTS = [
    "the cat sat on the mat", " leading", "  two", "trailing ", "a   b    c", "\n\n", "tab\tand\nline", "Zoë's 123",
    "猫が好き", "😀\u200d👧🏽", "", " ", "aaaa aaaaa", "catcat thethe", "\u00a0x", "mat. mat, mat!", SPACE,
    f"x{SPACE}y",
]  # fmt: skip
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]


@pytest.fixture(scope="module")
def vocabulary():
    """Tokens, scores and types in the order of a SentencePiece model: special, bytes, pieces, characters."""
    corpus = ["the cat sat on the mat", "aaaa aaaaa catcat thethe", "tab and line 123 it's Zoë mat. mat, mat!"] * 30
    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=150, show_progress=False, min_frequency=1)
    learner.train_from_iterator([SPACE + line.replace(" ", SPACE) for line in corpus], trainer)
    learnt = json.loads(learner.to_str())["model"]
    pieces = ["".join(pair) for pair in learnt["merges"]]
    pieces += [token for token in learnt["vocab"] if len(token) == 1]
    tokens = [*SPECIAL, *BYTES, *pieces]
    scores = [0.0] * (3 + 256) + [-float(i) for i in range(len(pieces))]
    types = [2, 3, 3, *[6] * 256, *[1] * len(pieces)]
    return tokens, scores, types


def written(path, vocabulary, change=lambda w: None, scores=True):
    tokens, values, types = vocabulary
    w = llama_writer(path, vocab=len(tokens))
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    if scores:
        w.add_token_scores(values)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    change(w)
    finish(w)
    return GgufCheckpoint(str(path)).tokenizer


def plain(text, vocabulary, prefix):
    """Join the neighbours whose union is the token of the highest score, the leftmost of equals, while there are any;
    what is no token becomes bytes (sentencepiece, src/bpe_model.cc)."""
    tokens, scores, types = vocabulary
    known = {t: i for i, t in enumerate(tokens) if types[i] == 1}
    parts = list((SPACE if prefix and text else "") + text.replace(" ", SPACE))
    while True:
        pairs = enumerate(map("".join, pairwise(parts)))
        unions = [(scores[known[union]], -i) for i, union in pairs if union in known]
        if not unions:
            break
        i = -max(unions)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids = []
    for part in parts:
        ids += [known[part]] if part in known else [3 + byte for byte in part.encode()]
    return ids


@pytest.mark.parametrize("prefix", [True, False])
def test_texts_give_the_ids_of_sentencepieces_algorithm(tmp_path, vocabulary, prefix):
    files = written(tmp_path / "m.gguf", vocabulary, lambda w: w.add_add_space_prefix(prefix))
    ours = Tokenizer.from_str(files.tokenizer_json)

    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == plain(text, vocabulary, prefix), text
        assert ours.decode(ids) == text.replace(SPACE, " "), text


def test_a_text_begins_with_the_first_token_unless_the_file_says_otherwise(tmp_path, vocabulary):
    ours = Tokenizer.from_str(written(tmp_path / "m.gguf", vocabulary).tokenizer_json)
    bare = Tokenizer.from_str(
        written(tmp_path / "n.gguf", vocabulary, lambda w: w.add_add_bos_token(False)).tokenizer_json
    )

    assert ours.encode("the cat").ids == [1, *bare.encode("the cat").ids]


def test_special_and_added_tokens_are_found_whole(tmp_path, vocabulary):
    tokens, scores, types = vocabulary
    more = [*tokens, "<|user|>", "  "], [*scores, 0.0, 0.0], [*types, 3, 4]
    ours = Tokenizer.from_str(written(tmp_path / "m.gguf", more).tokenizer_json)

    ids = ours.encode("</s>the<|user|>x  y", add_special_tokens=False).ids
    assert (ids[0], len(tokens) in ids, len(tokens) + 1 in ids) == (2, True, True)
    assert ours.decode([2, len(tokens)], skip_special_tokens=True) == ""


def test_the_ids_are_those_of_transformers_reading_of_the_file(tmp_path, vocabulary):
    from transformers.integrations.gguf import convert_gguf_tokenizer

    tokens, scores, types = vocabulary
    content = {"tokenizer_type": "llama", "tokens": tokens, "scores": scores, "token_type": types}
    theirs, _ = convert_gguf_tokenizer("phi3", content)  # its form for files that begin each text with a space
    ours = Tokenizer.from_str(written(tmp_path / "m.gguf", vocabulary).tokenizer_json)

    for text in TEXTS:
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text, add_special_tokens=False).ids, (
            text
        )


def test_a_vocabulary_without_scores_is_refused(tmp_path, vocabulary):
    with pytest.raises(CheckpointError, match=r"(?s)\d+ tokens and 0 entries in tokenizer.ggml.scores.*--tokenizer"):
        written(tmp_path / "m.gguf", vocabulary, scores=False)
