"""What happens to a request's text: stop rules, special tokens, and failures that stay its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.fake_device import VOCAB, FakeDevice, plain
from tests.engine.harness import make_engine, run
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.sampling_params import SamplingParams


class Syllables:
    """Tokens of one to three letters from a small alphabet, so that stop strings span tokens. 0 is special."""

    vocab_size = VOCAB
    eos_token_ids = (0,)

    def decode(self, ids, skip_special_tokens=True):
        return "".join(self.text(i) for i in ids if i or not skip_special_tokens)

    def encode(self, text, add_special_tokens=True):
        raise NotImplementedError("prompts are ids here")

    @staticmethod
    def text(i):
        return "<end>" if i == 0 else "abc"[i % 3] * (i % 2 + 1) + "ab"[i % 5 % 2]


def reading(ids, stops, include=False, skip=True):
    """Token by token: (tokens up to the stop, text, stop string)."""
    tokenizer, text = Syllables(), ""
    for n, i in enumerate(ids, 1):
        for letter in tokenizer.decode([i], skip):
            text += letter
            met = [s for s in stops if text.endswith(s)]
            if met:
                stop = max(met, key=len)
                return ids[:n], text if include else text[: -len(stop)], stop
    return ids, text, None


@given(
    stops=st.lists(st.text("abc", min_size=1, max_size=5), max_size=3),
    include=st.booleans(),
    stream=st.booleans(),
    prompts=st.lists(st.lists(st.integers(1, 96), min_size=1, max_size=5), min_size=1, max_size=4),
    device=st.fixed_dictionaries({"num_drafts": st.sampled_from([0, 3]), "slow": st.booleans()}),
    overlapped=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_stop_string_ends_the_text_where_it_is_complete(stops, include, stream, prompts, device, overlapped):
    engine = make_engine(FakeDevice(**device, num_pages=100), tokenizer=Syllables(), overlapped=overlapped, max_len=64)
    params = SamplingParams(temperature=0, max_tokens=24, stop=stops, include_stop_str_in_output=include)
    for i, prompt in enumerate(prompts):
        engine.add_request(str(i), prompt, params, stream=stream)
    outputs = run(engine)
    for i, prompt in enumerate(prompts):
        tokens, text, stop = reading(plain(prompt, 24), stops, include)
        got = outputs[str(i)].outputs[0]
        assert (got.token_ids, got.text, got.stop_reason) == (tokens, text, stop)
        assert got.finish_reason == ("length" if stop is None else "stop")


@given(stops=st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=3), drafts=st.sampled_from([0, 3]))
@settings(max_examples=60, deadline=None)
def test_text_that_streams_is_never_taken_back(stops, drafts):
    engine = make_engine(FakeDevice(num_drafts=drafts), tokenizer=Syllables())
    engine.add_request("0", [1], SamplingParams(temperature=0, max_tokens=24, stop=stops), stream=True)
    texts = []
    while engine.has_work:
        texts += [output.outputs[0].text for output in engine.step()]
    assert all(texts[-1].startswith(text) for text in texts)
    assert sorted(map(len, texts)) == list(map(len, texts))


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("include", [True, False])
def test_the_end_of_text_token_is_counted_and_not_read_unless_it_is_asked_for(skip, include):
    expected = plain([4], 60)
    end = expected[5]
    engine = make_engine(FakeDevice(), tokenizer=Syllables(), eos_token_ids=[end])
    params = SamplingParams(temperature=0, max_tokens=60, skip_special_tokens=skip, include_stop_str_in_output=include)
    engine.add_request("0", [4], params)
    got = run(engine)["0"].outputs[0]
    cut = expected.index(end) + 1
    assert got.token_ids == expected[:cut]
    assert (got.finish_reason, got.stop_reason) == ("stop", None)
    assert got.text == Syllables().decode(expected[: cut if include else cut - 1], skip)


def test_ignore_eos_goes_on_and_a_stop_token_is_named():
    expected = plain([4], 12)
    engine = make_engine(FakeDevice(), eos_token_ids=[expected[2]])
    engine.add_request("on", [4], SamplingParams(temperature=0, max_tokens=12, ignore_eos=True))
    engine.add_request("stop", [4], SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[expected[1]]))
    outputs = run(engine)
    assert outputs["on"].outputs[0].token_ids == expected
    assert outputs["stop"].outputs[0].stop_reason == expected[1]


def test_max_tokens_none_goes_on_to_the_longest_sequence():
    engine = make_engine(FakeDevice(), max_len=30)
    engine.add_request("0", [1, 2], SamplingParams(temperature=0, max_tokens=None))
    got = run(engine)["0"].outputs[0]
    assert (got.token_ids, got.finish_reason) == (plain([1, 2], 28), "length")


class Broken(Syllables):
    """Cannot decode one token."""

    def __init__(self, poison):
        self.poison = poison

    def decode(self, ids, skip_special_tokens=True):
        if self.poison in ids:
            raise UnicodeError("this token has no text")
        return super().decode(ids, skip_special_tokens)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("overlapped", [True, False])
def test_a_request_whose_text_cannot_be_made_fails_alone(stream, overlapped):
    bad, good = plain([1], 12), plain([2], 12)
    poison = next(t for t in bad[3:] if t not in [*good, 1, 2])
    engine = make_engine(FakeDevice(), tokenizer=Broken(poison), overlapped=overlapped)
    for i in (1, 2):
        engine.add_request(str(i), [i], SamplingParams(temperature=0, max_tokens=12), stream=stream)
    outputs = run(engine)
    assert outputs["1"].outputs[0].finish_reason == "error"
    assert outputs["1"].error == "UnicodeError while its text was made: this token has no text"
    assert outputs["2"].outputs[0].token_ids == good


def test_a_request_that_fails_on_arrival_leaves_nothing():
    engine = make_engine(FakeDevice(), tokenizer=Broken(5))
    with pytest.raises(RequestError, match="request x: its tokens cannot be turned into text"):
        engine.add_request("x", [5], SamplingParams())
    run(engine)


def test_an_aborted_request_gets_a_last_output_with_what_it_had():
    engine = make_engine(FakeDevice(), overlapped=False)
    engine.add_request("0", [1], SamplingParams(temperature=0, max_tokens=20))
    engine.add_request("waits", [2], SamplingParams(temperature=0, max_tokens=20))
    for _ in range(3):
        engine.step()
    engine.abort("0")
    engine.abort("unknown")
    outputs = run(engine)
    assert outputs["0"].outputs[0].finish_reason == "abort"
    assert outputs["0"].outputs[0].token_ids == plain([1], 3)
    assert outputs["waits"].outputs[0].token_ids == plain([2], 20)


@pytest.mark.parametrize("overlapped", [True, False])
def test_a_failed_step_ends_the_engine(overlapped):
    device = FakeDevice()
    device.fail_at = 1
    engine = make_engine(device, overlapped=overlapped)
    engine.add_request("0", [1], SamplingParams())
    with pytest.raises(EngineDeadError, match="on fire"):
        run(engine)
    for use in (engine.step, lambda: engine.add_request("1", [1], SamplingParams())):
        with pytest.raises(EngineDeadError, match="on fire"):
            use()


def test_structured_outputs_are_refused_for_that_request_only():
    engine = make_engine(FakeDevice())
    engine.add_request("good", [1, 2], SamplingParams(max_tokens=3))
    wanted = SamplingParams(max_tokens=3, structured_outputs={"regex": "a+"})
    with pytest.raises(RequestError, match="grammars are about text, and this engine has no tokenizer"):
        engine.add_request("bad", [1, 2], wanted)
    assert list(run(engine)) == ["good"]
