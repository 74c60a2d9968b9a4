"""Several samples of a prompt and salted prompts, on a tiny real model."""

import pytest

from vllm_core import LLM, SamplingParams

PROMPT = {"prompt_token_ids": [5, 60, 70, 200, 399, 17, 8, 250, 31, 77, 42, 9, 101, 3, 11, 64, 128, 300, 2, 90]}


def params(n=1, seed=3, **fields):
    return SamplingParams(n=n, seed=seed, max_tokens=12, ignore_eos=True, **fields)


@pytest.mark.parametrize(
    "settings",
    [{}, {"enable_prefix_caching": False}, {"async_scheduling": False}, {"max_num_seqs": 2}],
    ids=lambda settings: next(iter(settings), "default"),
)
def test_each_sample_has_the_text_and_log_probabilities_that_its_seed_has_alone(folder, settings):
    with LLM(str(folder), block_size=8, **settings) as llm:
        (several,) = llm.generate(PROMPT, params(4, logprobs=2, prompt_logprobs=1), use_tqdm=False)
        llm.reset_prefix_cache()
        alone = llm.generate(
            [PROMPT] * 4, [params(1, 3 + i, logprobs=2, prompt_logprobs=1) for i in range(4)], use_tqdm=False
        )
    assert [sample.index for sample in several.outputs] == [0, 1, 2, 3]
    assert len({sample.text for sample in several.outputs}) == 4
    for sample, single in zip(several.outputs, alone, strict=True):
        assert sample.token_ids == single.outputs[0].token_ids
        assert sample.text == single.outputs[0].text
        assert sample.cumulative_logprob == pytest.approx(single.outputs[0].cumulative_logprob, abs=1e-4)
    assert len(several.prompt_logprobs) == 20
    assert several.prompt_logprobs[1].keys() == alone[0].prompt_logprobs[1].keys()


def test_a_stream_shows_all_samples_and_ends_with_the_last(folder):
    with LLM(str(folder)) as llm:
        outputs = list(llm.stream(PROMPT, params(3)))
        (whole,) = llm.generate(PROMPT, params(3), use_tqdm=False)
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert all(len(output.outputs) == 3 for output in outputs)
    assert [sample.text for sample in outputs[-1].outputs] == [sample.text for sample in whole.outputs]


def test_prompts_share_what_is_cached_only_under_the_same_salt(folder):
    with LLM(str(folder), block_size=8) as llm:
        cached = []
        for salt in ("", "", "mine", "yours", "mine", None):
            (output,) = llm.generate({**PROMPT, "cache_salt": salt}, params(), use_tqdm=False)
            cached.append(output.num_cached_tokens)
    assert cached == [0, 16, 0, 0, 16, 16]
