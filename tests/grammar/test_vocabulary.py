"""What each token adds to a text, read off a tokenizer's tables."""

from __future__ import annotations

import pytest

from tests.engine.tokenizers_for_tests import TEXT, byte_fallback, byte_level
from vllm_core.engine.vocabulary import vocabulary_of

TOKENIZERS = {"byte level": byte_level, "byte fallback": byte_fallback}
MORE = ["a\tb\r\n", "  two  spaces ", "日本語 👋🏽", '{"a": [1, 2.5e-3], "é": null}', "\x00\x7f"]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_bytes_of_a_text_s_tokens_are_the_text(kind):
    tokenizer = TOKENIZERS[kind]()
    found = vocabulary_of(tokenizer, tokenizer.vocab_size + 37, tokenizer.eos_token_ids)
    for text in [*TEXT, *MORE]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        data = b"".join(found.token_bytes[i] for i in ids)
        assert data.decode().removeprefix(" " if kind == "byte fallback" else "") == text


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_special_tokens_and_ids_beyond_the_tokenizer_add_nothing(kind):
    tokenizer = TOKENIZERS[kind]()
    found = vocabulary_of(tokenizer, tokenizer.vocab_size + 37, tokenizer.eos_token_ids)
    assert found.size == len(found.token_bytes) == tokenizer.vocab_size + 37
    assert {"<s>", "</s>", "<|im_start|>", "<|im_end|>"} <= {*found.special.values()}
    assert all(found.token_bytes[i] == b"" for i in found.special)
    assert found.token_bytes[-37:] == [b""] * 37
    assert found.stop_ids == tuple(tokenizer.eos_token_ids)
    assert found.words == -(-found.size // 32)


def test_every_byte_can_be_written_in_either_kind():
    for make in TOKENIZERS.values():
        tokenizer = make()
        pieces = {*vocabulary_of(tokenizer, tokenizer.vocab_size, ()).token_bytes}
        assert {bytes([byte]) for byte in range(256)} <= pieces


def test_added_tokens_that_are_not_special_are_text():
    tokenizer = byte_level()
    from tokenizers import AddedToken, Tokenizer

    rust = Tokenizer.from_str(tokenizer.hf.backend_tokenizer.to_str())
    rust.add_tokens([AddedToken("<tool_call> é", special=False)])
    other = type(tokenizer)(type(tokenizer.hf)(tokenizer_object=rust, eos_token="</s>"))
    found = vocabulary_of(other, other.vocab_size, other.eos_token_ids)
    assert "<tool_call> é".encode() in found.token_bytes


def test_a_tokenizer_may_bring_its_own_table():
    class Own:
        vocab_size = 3

        def token_bytes(self):
            return [b"a", b"\xff", b""]

    assert vocabulary_of(Own(), 5, (2,)).token_bytes == [b"a", b"\xff", b"", b"", b""]


def test_without_tables_tokens_are_decoded_behind_another_one():
    class Words:
        vocab_size = 4
        words = ("a", " b", "é", "\ufffd")

        def encode(self, text, add_special_tokens=True):
            return [0]

        def decode(self, ids, skip_special_tokens=True):
            return "".join(self.words[i] for i in ids)

    assert vocabulary_of(Words(), 4, ()).token_bytes == [b"a", b" b", "é".encode(), b""]
