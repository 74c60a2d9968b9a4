from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest

from tests.engine.fake_device import VOCAB, FakeDevice, plain
from tests.engine.harness import check_empty
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.llm import LLM
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.sinks import Sinks
from vllm_core.interfaces.queries import SchedulerQuery
from vllm_core.runner.chosen import Chosen

GREEDY = SamplingParams(temperature=0, max_tokens=8)


class Letters:
    """A tokenizer of one token a character; 97 of them."""

    vocab_size = VOCAB
    eos_token_ids = ()

    def encode(self, text, add_special_tokens=True):
        return [1] * add_special_tokens + [ord(c) % VOCAB for c in text]

    def decode(self, ids, skip_special_tokens=True):
        return "".join(chr(0x4E00 + i) for i in ids)


class Render:
    def render(self, messages, **options):
        if any(m.get("role") == "alien" for m in messages):
            raise ValueError("unknown role alien")
        return "|".join(m["content"] for m in messages) + options.get("end", ">")


class Stopping(FakeDevice):
    stopped = 0

    def stop(self):
        self.stopped += 1


def make_llm(tokenizer=True, generation_config=None, async_scheduling=True, **device):
    device = Stopping(**{"num_pages": 400, "max_rows": 64, **device})
    built = SimpleNamespace(
        lock=SimpleNamespace(records=()),
        settings=EngineSettings(max_num_seqs=device.max_rows, async_scheduling=async_scheduling),
        executor=device,
        capacity=device.start(),
        max_model_len=128,
        max_step_tokens=64,
        tokenizer=Letters() if tokenizer else None,
        renderer=Render() if tokenizer else None,
        parsers=None,
        eos_token_ids=(),
        policy=Chosen("fcfs", "vllm_core.engine.policy:FirstComeFirstServed", SchedulerQuery(policy="fcfs")),
        processors=(),
        grammars=None,
        sinks=Sinks({}),
        generation_config=generation_config or {},
        timings={},
    )
    return LLM.from_built(built)


@pytest.fixture
def llm():
    with make_llm() as llm:
        yield llm
        # What was aborted gives its pages back with the next steps.
        while llm._engine.has_work:
            llm._engine.step()
        check_empty(llm._engine)


def answer(ids, max_tokens=8):
    tokens = plain(ids, max_tokens)
    return tokens, Letters().decode(tokens)


@pytest.mark.parametrize("prompt", ["Hello", {"prompt": "Hello"}, {"prompt_token_ids": Letters().encode("Hello")}])
def test_one_prompt_in_any_form_gives_one_output(llm, prompt):
    (output,) = llm.generate(prompt, GREEDY, use_tqdm=False)
    assert (output.outputs[0].token_ids, output.outputs[0].text) == answer(Letters().encode("Hello"))
    assert output.outputs[0].finish_reason == "length"
    assert output.prompt == (None if isinstance(prompt, dict) and "prompt" not in prompt else "Hello")
    assert output.metrics.arrival_time <= output.metrics.first_token_time <= output.metrics.finished_time


def test_64_mixed_requests_at_once_come_back_in_order(llm):
    prompts = ["x" * (i % 50 + 1) + str(i) for i in range(64)]
    params = [SamplingParams(temperature=0, max_tokens=i % 20 + 1) for i in range(64)]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    for i, output in enumerate(outputs):
        assert output.prompt == prompts[i]
        assert output.outputs[0].token_ids == plain(Letters().encode(prompts[i]), i % 20 + 1)


def test_a_list_of_numbers_is_one_prompt_and_a_list_of_lists_several(llm):
    assert len(llm.generate([1, 2, 3], GREEDY, use_tqdm=False)) == 1
    assert len(llm.generate([[1, 2, 3], [4]], GREEDY, use_tqdm=False)) == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt_token_ids": []}, "prompt is empty"),
        ({"prompt_token_ids": [5, VOCAB]}, f"token id {VOCAB} is not in the vocabulary"),
        ({"prompt_token_ids": [5, -1]}, "token id -1 is not in the vocabulary"),
        ({"prompt_token_ids": [5, "6"]}, "token id 1 of the prompt must be a whole number, not '6'"),
        ({"prompt_token_ids": "567"}, "must be a list of numbers"),
        ({"prompt_token_ids": b"567"}, "must be a list of numbers"),
        ({"prompt_token_ids": [True, 5]}, "token id 0 of the prompt must be a whole number, not True"),
        ({"prompt_token_ids": [5.0]}, "token id 0 of the prompt must be a whole number, not 5.0"),
        ({"prompt_token_ids": [1] * 128}, "the prompt has 128 tokens"),
        ({"promt": "Hello"}, "did you mean 'prompt'?"),
        ({"prompt": "Hello", "multi_modal_data": {}}, "'multi_modal_data' in a prompt is not supported yet"),
        ({"prompt": 7}, "must be a string, not 7"),
        ({}, "neither text nor token ids"),
        (3.5, "must be a list of numbers, not 3.5"),
    ],
)
def test_a_malformed_prompt_fails_alone(llm, bad, message):
    first, failed, last = llm.generate(["one", bad, "two"], GREEDY, use_tqdm=False)
    assert failed.finished
    assert failed.outputs[0].finish_reason == "error"
    assert message in failed.error
    assert failed.error.startswith(f"request {failed.request_id}: ")
    assert first.outputs[0].token_ids == answer(Letters().encode("one"))[0]
    assert last.outputs[0].token_ids == answer(Letters().encode("two"))[0]
    with pytest.raises(RequestError, match=message.replace("(", r"\(").replace("?", r"\?")):
        llm.generate([bad], GREEDY, use_tqdm=False)


def test_sampling_params_must_be_one_or_one_each(llm):
    with pytest.raises(ValueError, match="3 prompts came with 2 sampling_params"):
        llm.generate(["a", "b", "c"], [GREEDY, GREEDY], use_tqdm=False)
    with pytest.raises(RequestError, match="must be SamplingParams, not dict"):
        llm.generate("a", {"temperature": 0}, use_tqdm=False)


def test_streamed_texts_grow_to_what_generate_gives(llm):
    outputs = list(llm.stream("Hello", GREEDY))
    texts = [o.outputs[0].text for o in outputs]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert len(set(texts)) > 4
    assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
    assert texts[-1] == answer(Letters().encode("Hello"))[1]


def test_two_streams_and_a_batch_do_not_take_each_others_outputs(llm):
    one, two = llm.stream("one", GREEDY), llm.stream("two", GREEDY)
    next(one), next(two)
    (batch,) = llm.generate("three", GREEDY, use_tqdm=False)
    ends = [list(two)[-1], list(one)[-1], batch]
    for word, output in zip(["two", "one", "three"], ends, strict=True):
        assert output.outputs[0].token_ids == answer(Letters().encode(word))[0]


def test_leaving_a_stream_ends_its_request(llm):
    stream = llm.stream("Hello", SamplingParams(temperature=0, max_tokens=100))
    next(stream)
    stream.close()
    assert not llm._engine.core.roster.requests


def test_an_interrupted_batch_leaves_nothing_behind(llm, monkeypatch):
    step, calls = llm._engine.step, []

    def interrupted():
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(llm._engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["a", "b", "c"], SamplingParams(temperature=0, max_tokens=100), use_tqdm=False)
    assert not llm._engine.core.roster.requests


def test_chat_renders_without_more_special_tokens(llm):
    messages = [{"role": "user", "content": "Hi"}]
    (output,) = llm.chat(messages, GREEDY, use_tqdm=False)
    assert output.prompt == "Hi>"
    assert output.prompt_token_ids == Letters().encode("Hi>", add_special_tokens=False)
    two = llm.chat([messages, messages], GREEDY, use_tqdm=False, end="!")
    assert [o.prompt for o in two] == ["Hi!", "Hi!"]


def test_a_conversation_that_the_template_refuses_fails_alone(llm):
    good, bad = [{"role": "user", "content": "Hi"}], [{"role": "alien", "content": "Hi"}]
    first, second = llm.chat([bad, good], GREEDY, use_tqdm=False)
    assert "unknown role alien" in first.error
    assert second.outputs[0].finish_reason == "length"


def test_defaults_come_from_the_generation_config():
    llm = make_llm(generation_config={"temperature": 0.0, "max_new_tokens": 3, "top_k": 5, "eos_token_id": 9})
    assert llm.get_default_sampling_params() == SamplingParams(temperature=0.0, max_tokens=3, top_k=5)
    assert len(llm.generate("Hello", use_tqdm=False)[0].outputs[0].token_ids) == 3


def test_without_a_tokenizer_ids_go_in_and_out():
    llm = make_llm(tokenizer=False)
    (output,) = llm.generate({"prompt_token_ids": [5, 6]}, GREEDY, use_tqdm=False)
    assert (output.outputs[0].text, output.outputs[0].token_ids) == ("", plain([5, 6], 8))
    with pytest.raises(RequestError, match="prompt_token_ids"):
        llm.generate("text", GREEDY, use_tqdm=False)
    with pytest.raises(ValueError, match="skip_tokenizer_init"):
        llm.get_tokenizer()
    with pytest.raises(RequestError, match="skip_tokenizer_init"):
        llm.chat([{"role": "user", "content": "Hi"}], GREEDY, use_tqdm=False)


@pytest.mark.parametrize("name", ["embed", "encode", "score", "classify", "beam_search"])
def test_methods_of_vllm_that_are_missing_say_what_to_use(llm, name):
    with pytest.raises(AttributeError, match=f"LLM.{name} does not exist here yet.\n  instead "):
        getattr(llm, name)
    assert not hasattr(llm, name)


def test_a_mistyped_method_names_the_nearest(llm):
    with pytest.raises(AttributeError, match="did you mean 'generate'"):
        llm.generat  # noqa: B018


def test_unknown_settings_are_refused_before_anything_is_built():
    with pytest.raises(ValueError, match="max_model_len"):
        LLM("some-model", max_model_length=5)


def test_a_failed_step_ends_the_engine_with_its_cause():
    llm = make_llm()
    llm._engine.core.executor.fail_at = 2
    with pytest.raises(EngineDeadError, match="the device is on fire"):
        llm.generate("Hello", GREEDY, use_tqdm=False)
    with pytest.raises(EngineDeadError, match="the device is on fire"):
        llm.generate("Hello", GREEDY, use_tqdm=False)


def test_the_executor_is_stopped_once_by_shutdown_and_by_forgetting_the_engine():
    llm = make_llm()
    device = llm._engine.core.executor
    llm.shutdown()
    llm.shutdown()
    assert device.stopped == 1
    llm = make_llm()
    device = llm._engine.core.executor
    del llm
    assert device.stopped == 1


def test_after_shutdown_every_call_says_so():
    llm = make_llm()
    stream = llm.stream("Hello", GREEDY)
    next(stream)
    llm.shutdown()
    for use in (lambda: llm.generate("a", GREEDY, use_tqdm=False), lambda: next(llm.stream("a")), lambda: next(stream)):
        with pytest.raises(EngineDeadError, match="it was shut down; make a new LLM"):
            use()


def test_a_stream_keeps_its_engine_alive():
    texts = [o.outputs[0].text for o in make_llm().stream("Hello", GREEDY)]
    assert texts[-1] == answer(Letters().encode("Hello"))[1]


def test_two_engines_in_one_process_do_not_know_of_each_other():
    one, two = make_llm(), make_llm(max_rows=2)
    streams = one.stream("one", GREEDY), two.stream("two", GREEDY)
    for stream in streams:
        next(stream)
    one.shutdown()
    assert list(streams[1])[-1].outputs[0].token_ids == answer(Letters().encode("two"))[0]


def test_the_progress_bar_counts_every_output(llm):
    class Bar:
        def __init__(self, total, desc):
            self.total, self.done, self.closed = total, 0, False
            bars.append(self)

        def update(self):
            self.done += 1

        def close(self):
            self.closed = True

    bars = []
    llm.generate(["a", "b"], GREEDY, use_tqdm=Bar)
    assert (bars[0].total, bars[0].done, bars[0].closed) == (2, 2, True)
