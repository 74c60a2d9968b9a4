"""A real tiny engine in use: wrong requests, tiny caches, interruptions, several engines, and rest."""

import itertools
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest

from tests.engine.harness import check_empty
from tests.loading.checkpoints import greedy
from vllm_core import LLM, SamplingParams
from vllm_core.config.convert import Given
from vllm_core.config.engine import EngineSettings
from vllm_core.config.load import load_settings
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.memory import MemoryPlanError
from vllm_core.engine.model_limits import choose_max_model_len

PROMPT = [5, 60, 70, 200, 399]
LONG = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)


def ids(output):
    return output.outputs[0].token_ids


def drained(llm):
    """What was aborted gives back its pages with the next steps; then nothing may be left."""
    while llm._engine.has_work:
        llm._engine.step()
    llm.reset_prefix_cache()
    check_empty(llm._engine)


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(str(folder), dtype="float32", max_num_batched_tokens=64) as llm:
        yield llm
        drained(llm)


@pytest.fixture(scope="module")
def expected(model):
    return greedy(model, PROMPT, 40)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        ([[]], "the prompt is empty"),
        ([[400]], "token id 400 is not in the vocabulary of 400 tokens"),
        ([[-1]], "token id -1 is not in the vocabulary"),
        ([[2] * 256], "the prompt has 256 tokens"),
        ("a \ud800 b", "character 2 is half of a surrogate pair"),
    ],
)
def test_a_wrong_prompt_is_refused_and_the_next_one_answered(llm, expected, prompt, message):
    with pytest.raises(RequestError, match=message):
        llm.generate(prompt, LONG, use_tqdm=False)
    refused, answered = llm.generate([*([prompt] if isinstance(prompt, str) else prompt), PROMPT], LONG, use_tqdm=False)
    assert message in refused.error
    assert ids(answered) == expected


def test_an_array_is_refused_with_the_way_to_a_list(llm):
    with pytest.raises(RequestError, match=r"must be a list of numbers, not array\(.*its \.tolist\(\) is one"):
        llm.generate({"prompt_token_ids": np.array(PROMPT)}, LONG, use_tqdm=False)


def test_bytes_are_neither_text_nor_ids(llm):
    with pytest.raises(TypeError, match="not bytes"):
        llm.generate(b"abc", LONG, use_tqdm=False)


def test_one_message_that_is_not_in_a_list_is_refused(llm):
    with pytest.raises(RequestError, match="messages must be a list"):
        llm.chat({"role": "user", "content": "Hi"}, LONG, use_tqdm=False)


def test_a_stop_token_that_does_not_exist_is_refused(llm):
    with pytest.raises(RequestError, match="stop_token_ids: token id 400 is not in the vocabulary"):
        llm.generate([PROMPT], SamplingParams(stop_token_ids=[3, 400]), use_tqdm=False)


@pytest.mark.parametrize(
    "field", [{"temperature": 1e300}, {"temperature": 1e-300}, {"top_p": 1e-300}, {"seed": 2**63 - 1}]
)
def test_extreme_parameters_are_computed(llm, field):
    params = SamplingParams(**{"temperature": 1.0, "seed": 3, "max_tokens": 30, "ignore_eos": True, **field})
    first, second = llm.generate([PROMPT, PROMPT], params, use_tqdm=False)
    assert ids(first) == ids(second)
    if field in ({"temperature": 1e-300}, {"top_p": 1e-300}):
        assert ids(first) == ids(llm.generate([PROMPT], LONG, use_tqdm=False)[0])[:30]


def test_a_huge_max_tokens_ends_at_the_models_length(llm, expected):
    params = SamplingParams(temperature=0, max_tokens=2**31 - 1, ignore_eos=True)
    (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    assert len(ids(output)) == 256 - len(PROMPT)
    assert ids(output)[:40] == expected
    assert output.outputs[0].finish_reason == "length"


@pytest.mark.parametrize("seed", range(4))
def test_streamed_text_only_grows_and_ends_as_the_whole_with_characters_split_over_tokens(llm, seed):
    """A random model of a byte-level vocabulary: half characters and broken bytes at every cut."""
    params = SamplingParams(temperature=1.5, seed=seed, max_tokens=120, ignore_eos=True)
    prompt = "Größe 你好，世界 👋🏽 🇫🇷"
    texts = [output.outputs[0].text for output in llm.stream(prompt, params)]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    (whole,) = llm.generate(prompt, params, use_tqdm=False)
    assert texts[-1] == whole.outputs[0].text
    tokenizer = llm.get_tokenizer()
    context = tokenizer.decode(whole.prompt_token_ids)
    assert context + texts[-1] == tokenizer.decode([*whole.prompt_token_ids, *ids(whole)])


@pytest.mark.parametrize("async_scheduling", [True, False])
def test_64_requests_in_a_cache_for_few_answer_as_alone(folder, llm, async_scheduling):
    prompts = [[(7 * i + j) % 399 + 1 for j in range(3 + i % 30)] for i in range(64)]
    params = [
        SamplingParams(
            temperature=0.0 if i % 2 else 1.0, top_k=20 * (i % 3), seed=i, max_tokens=5 + i % 60, ignore_eos=True
        )
        for i in range(64)
    ]
    small = {"max_model_len": 100, "block_size": 4, "max_num_batched_tokens": 48, "async_scheduling": async_scheduling}
    with LLM(str(folder), dtype="float32", kv_cache_memory=100 * 1024, **small) as tiny:
        outputs = tiny.generate(prompts, params, use_tqdm=False)
        assert sum(o.metrics.num_preemptions for o in outputs) > 10
        drained(tiny)
    for i in range(0, 64, 5):
        assert ids(outputs[i]) == ids(llm.generate([prompts[i]], params[i], use_tqdm=False)[0])


def test_streams_that_are_left_at_any_point_give_everything_back(folder, expected):
    with LLM(str(folder), dtype="float32") as llm:
        for taken in (0, 1, 2, 7):
            streams = [llm.stream(PROMPT, LONG) for _ in range(3)]
            for stream in streams:
                for _ in range(taken):
                    next(stream)
            for stream in streams:
                stream.close()
        assert ids(llm.generate([PROMPT], LONG, use_tqdm=False)[0]) == expected
        drained(llm)


def test_a_real_ctrl_c_ends_the_call_and_not_the_engine(llm, expected):
    params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[i] for i in range(1, 400)], params, use_tqdm=False)
    timer.join()
    assert not llm._engine.core.roster.requests
    assert ids(llm.generate([PROMPT], LONG, use_tqdm=False)[0]) == expected


def test_an_exception_within_a_step_ends_every_request_and_says_why(folder, monkeypatch):
    llm = LLM(str(folder), max_num_batched_tokens=8)
    runner, calls = llm._engine.core.executor._runner, []
    forward = runner.model.forward

    def failing(*args):
        calls.append(1)
        if len(calls) == 4:
            raise FloatingPointError("the model overflowed")
        return forward(*args)

    monkeypatch.setattr(runner.model, "forward", failing)
    stream = llm.stream(PROMPT, LONG)
    next(stream)
    with pytest.raises(EngineDeadError, match="FloatingPointError: the model overflowed"):
        llm.generate([PROMPT] * 3, LONG, use_tqdm=False)
    with pytest.raises(EngineDeadError, match="the model overflowed"):
        list(stream)  # what had arrived before comes first
    with pytest.raises(EngineDeadError, match="the model overflowed"):
        llm.generate([PROMPT], LONG, use_tqdm=False)
    llm.shutdown()
    llm.shutdown()


def test_two_engines_answer_in_turns_and_one_outlives_the_other(folder, expected):
    one, two = LLM(str(folder), dtype="float32"), LLM(str(folder), dtype="float32", max_num_seqs=2, block_size=8)
    streams = one.stream(PROMPT, LONG), two.stream(PROMPT, LONG)
    for _ in range(5):
        for stream in streams:
            next(stream)
    one.shutdown()
    assert ids(list(streams[1])[-1]) == expected
    assert ids(two.generate([PROMPT], LONG, use_tqdm=False)[0]) == expected
    with pytest.raises(EngineDeadError, match="it was shut down"):
        next(streams[0])
    two.shutdown()


def test_an_engine_without_requests_uses_no_processor_time(folder):
    with LLM(str(folder)) as llm:
        stream = llm.stream(PROMPT, LONG)
        next(stream)  # a step is in flight, and nobody asks for more
        time.sleep(0.1)
        before = _processor_seconds()
        time.sleep(0.5)
        assert _processor_seconds() - before < 0.02
        assert len(list(stream)) > 5


def _processor_seconds():
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("memory", [1, 20_000, 60_000])
@pytest.mark.parametrize("more", [{}, {"block_size": 4}, {"max_num_batched_tokens": 5}])
def test_every_suggestion_of_a_memory_error_starts_and_answers(folder, memory, more):
    with pytest.raises(MemoryPlanError) as error:
        LLM(str(folder), kv_cache_memory=memory, **more)
    lines = str(error.value).split("Any one of these starts:\n")[1].splitlines()
    # Half the bytes a number is one more, where the processor computes them well and half is enough.
    assert {line.split()[0] for line in lines} - {"--dtype"} == {
        "--kv-cache-memory", *(["--max-model-len"] if memory > 1 else [])
    }  # fmt: skip
    for line in lines:
        flag, value = line.split()
        given = {"model": str(folder), "kv_cache_memory": memory, **more}
        overrides = {**given, flag[2:].replace("-", "_"): Given(value, flag, text=True)}
        with LLM.from_settings(load_settings(EngineSettings, env=False, overrides=overrides)) as llm:
            longest = llm.built.max_model_len - 1
            (output,) = llm.generate([[7] * longest], SamplingParams(max_tokens=1), use_tqdm=False)
            assert len(ids(output)) == 1
            drained(llm)


def test_the_suggestions_for_a_length_beyond_the_model_start(folder):
    with pytest.raises(ValueError, match="Any one of these starts") as error:
        LLM(str(folder), max_model_len=300)
    assert "--max-model-len 256" in str(error.value)
    LLM(str(folder), max_model_len=256).shutdown()
    assert """--hf-overrides '{"max_position_embeddings": 300}'""" in str(error.value)
    LLM(str(folder), max_model_len=300, hf_overrides={"max_position_embeddings": 300}).shutdown()


def test_the_field_that_limits_the_length_is_the_one_named():
    with pytest.raises(ValueError, match=r"made for 128 (?s:.*)--hf-overrides '\{\"n_positions\": 200\}'"):
        choose_max_model_len(200, {"n_positions": 128, "max_position_embeddings": 4096})
