from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.engine.tokenizers_for_tests import TEXT, byte_fallback, byte_level
from vllm_core.engine.detokenizer import HALF, Detokenizer

TOKENIZERS = {"byte_level": byte_level, "byte_fallback": byte_fallback}


def pieces(tokenizer, prompt, output, skip=True):
    stream = Detokenizer(tokenizer, prompt, skip)
    return [*(stream.push(i) for i in output), stream.flush()]


def whole(tokenizer, prompt, output, skip=True):
    before = tokenizer.decode(prompt, skip_special_tokens=skip).rstrip(HALF)
    return tokenizer.decode([*prompt, *output], skip_special_tokens=skip)[len(before) :]


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_pieces_of_a_text_add_up_to_the_decoding_of_the_whole(make, data):
    tokenizer = make()
    text = data.draw(st.text(min_size=1, max_size=60) | st.sampled_from(TEXT))
    ids = tokenizer.encode(text, add_special_tokens=False)
    cut = data.draw(st.integers(0, len(ids)))
    assume(HALF not in tokenizer.decode(ids[:cut]))  # a byte-fallback decoder spoils the whole run
    assert "".join(pieces(tokenizer, ids[:cut], ids[cut:])) == whole(tokenizer, ids[:cut], ids[cut:])


@given(ids=st.lists(st.integers(0, 399), max_size=80), cut=st.integers(0, 10), skip=st.booleans())
@settings(max_examples=300, deadline=None)
def test_pieces_of_arbitrary_bytes_add_up_to_the_decoding_of_the_whole(ids, cut, skip):
    tokenizer = byte_level()
    ids = [i % tokenizer.vocab_size for i in ids]
    assume(not tokenizer.decode(ids[:cut], skip_special_tokens=skip).endswith(HALF))
    assert "".join(pieces(tokenizer, ids[:cut], ids[cut:], skip)) == whole(tokenizer, ids[:cut], ids[cut:], skip)


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_no_piece_holds_half_a_character(make):
    tokenizer = make()
    ids = tokenizer.encode(TEXT[2], add_special_tokens=False)
    given_out = pieces(tokenizer, [], ids)
    assert HALF not in "".join(given_out)
    assert "".join(given_out) == TEXT[2]
    assert len([p for p in given_out if p]) > len(TEXT[2]) / 4  # it streams; it does not wait for the end


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_output_continues_the_prompts_text_with_its_space(make):
    tokenizer = make()
    prompt = tokenizer.encode("The capital of France is", add_special_tokens=False)
    both = tokenizer.encode("The capital of France is the stop", add_special_tokens=False)
    assert both[: len(prompt)] == prompt
    assert "".join(pieces(tokenizer, prompt, both[len(prompt) :])) == " the stop"


def test_a_character_begun_in_the_prompt_is_completed_in_the_output():
    tokenizer = byte_level()
    bytes_ = [tokenizer.hf.convert_tokens_to_ids(t) for t in "ðŁĳĵ"]  # the four bytes of one emoji
    prompt = [*tokenizer.encode("The"), *bytes_[:3]]
    assert tokenizer.decode(prompt) == "The" + HALF
    assert "".join(pieces(tokenizer, prompt, bytes_[3:])) == "👓"


def test_a_thousand_special_tokens_cost_no_more_each_than_one():
    tokenizer = byte_level()
    stream = Detokenizer(tokenizer, tokenizer.encode("The"))
    special = tokenizer.encode("<|im_end|>")[0]
    assert all(stream.push(special) == "" for _ in range(1000))
    assert len(stream._window) < 40
    assert "".join(stream.push(i) for i in tokenizer.encode(" end")) == " end"


def test_endless_broken_bytes_come_out_and_do_not_pile_up():
    tokenizer = byte_level()
    lead = tokenizer.hf.convert_tokens_to_ids("ä")  # byte 0xE4, the first of three
    stream = Detokenizer(tokenizer)
    text = "".join(stream.push(lead) for _ in range(500))
    assert len(stream._window) < 60
    assert text + stream.flush() == HALF * 500
