"""What requests may ask for and what they get back, on a real tiny model with its tokenizer."""

import pytest
import torch

from tests.loading.checkpoints import LENGTH, greedy
from vllm_core import LLM, SamplingParams

PROMPT = "The quick brown fox"
FREE = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(folder, dtype="float32") as llm:
        yield llm


def one(llm, prompt=PROMPT, **fields):
    (output,) = llm.generate(prompt, SamplingParams(**{**FREE, **fields}), use_tqdm=False)
    return output


def test_a_bad_word_does_not_come_at_the_start_nor_after_a_space(llm):
    tokenizer = llm.get_tokenizer()
    (start,), (middle,) = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", " a"))
    assert start != middle
    for wanted in (start, middle):
        bias = {"logit_bias": {wanted: 100.0}}
        assert set(one(llm, **bias).outputs[0].token_ids) == {wanted}
        for word in ("a", " a"):
            assert not {start, middle} & set(one(llm, **bias, bad_words=[word]).outputs[0].token_ids)


def test_a_bad_word_of_several_tokens_loses_its_last_token_only(llm, model):
    tokenizer = llm.get_tokenizer()
    word = "Größe"
    run = tokenizer.encode(word, add_special_tokens=False)
    assert len(run) > 1
    # Nothing but the word's tokens may come, so that it does come unless it is forbidden.
    asked = {"allowed_token_ids": run, "max_tokens": 200, "temperature": 10.0, "seed": 1}
    free, held = one(llm, **asked), one(llm, **asked, bad_words=[word])

    def found(output):
        ids = output.outputs[0].token_ids
        return [i for i in range(len(ids)) if ids[i : i + len(run)] == run]

    assert found(free)
    assert not found(held)
    assert set(held.outputs[0].token_ids) == set(run)


def test_stop_strings_are_not_looked_for_before_min_tokens(llm):
    full = one(llm).outputs[0]
    text = llm.get_tokenizer().decode(full.token_ids[:3])
    stop = text.strip()[-1]
    early = one(llm, stop=stop).outputs[0]
    late = one(llm, stop=stop, min_tokens=8).outputs[0]
    assert early.finish_reason == "stop"
    assert len(early.token_ids) <= 3
    assert len(late.token_ids) >= 8
    assert late.token_ids == full.token_ids[: len(late.token_ids)]


def test_min_tokens_keeps_the_end_of_text_away_until_then(llm, model):
    params = {"logit_bias": {1: 100.0}, "ignore_eos": False}
    assert one(llm, **params).outputs[0].token_ids == [1]
    held = one(llm, min_tokens=5, **params).outputs[0]
    assert held.token_ids[5:] == [1]
    assert 1 not in held.token_ids[:5]
    assert held.finish_reason == "stop"


def test_the_end_of_text_is_held_back_even_where_it_would_not_end_the_text(llm):
    held = one(llm, min_tokens=5, logit_bias={1: 100.0}, ignore_eos=True).outputs[0]
    assert 1 not in held.token_ids[:5]
    assert set(held.token_ids[5:]) == {1}


@pytest.mark.parametrize(("most", "kept"), [(5, 5), (1, 1), (-1, LENGTH - 12)])
def test_a_prompt_that_is_too_long_can_be_cut_to_its_end(llm, model, most, kept):
    prompt = [2 + i % 90 for i in range(300)]
    output = one(llm, {"prompt_token_ids": prompt}, truncate_prompt_tokens=most)
    assert output.prompt_token_ids == prompt[-kept:]
    assert output.outputs[0].token_ids == greedy(model, prompt[-kept:], 12)
    with pytest.raises(ValueError, match="the prompt has 300 tokens"):
        one(llm, {"prompt_token_ids": prompt}, truncate_prompt_tokens=400)


def test_token_ids_out_of_the_vocabulary_fail_their_request_and_no_other(llm):
    wrong = [
        {"logit_bias": {400: 1.0}},
        {"allowed_token_ids": [3, 401]},
        {"stop_token_ids": [500]},
        {"prompt_logprobs": 21},
        {"logprobs": -1},
        {"bad_words": ["abcdefgh " * 20]},
    ]
    fields = [{}, *wrong, {}]
    outputs = llm.generate([PROMPT] * len(fields), [SamplingParams(**FREE, **f) for f in fields], use_tqdm=False)
    assert outputs[0].outputs[0].token_ids == outputs[-1].outputs[0].token_ids != []
    said = [o.error for o in outputs[1:-1]]
    for name, error in zip(wrong, said, strict=True):
        assert next(iter(name)) in error, error
    assert "token id 400 is not in the vocabulary of 400 tokens" in said[0]
    assert "token id 401 is not in the vocabulary of 400 tokens" in said[1]
    assert "at most 20" in said[3]


def test_log_probabilities_carry_texts_ranks_and_the_sum(llm):
    tokenizer = llm.get_tokenizer()
    output = one(llm, logprobs=3, prompt_logprobs=2)
    (done,) = output.outputs
    for token, found in zip(done.token_ids, done.logprobs, strict=True):
        assert next(iter(found)) == token
        assert found[token].rank == 1  # greedy
        assert [e.rank for e in found.values()] == [1, 2, 3]
        assert all(e.decoded_token == tokenizer.decode([t], skip_special_tokens=False) for t, e in found.items())
    assert done.cumulative_logprob == pytest.approx(
        sum(f[t].logprob for t, f in zip(done.token_ids, done.logprobs, strict=True))
    )
    assert output.prompt_logprobs[0] is None
    assert [next(iter(d)) for d in output.prompt_logprobs[1:]] == output.prompt_token_ids[1:]
    assert one(llm, logprobs=0).outputs[0].logprobs[0].keys() == {done.token_ids[0]}
    assert one(llm, logprobs=1, detokenize=False).outputs[0].logprobs[0][done.token_ids[0]].decoded_token is None


def test_log_probabilities_are_the_models_own_whatever_changes_the_logits(llm):
    plain = one(llm, logprobs=2).outputs[0].logprobs[0]
    token = one(llm, allowed_token_ids=[77], logprobs=2, presence_penalty=2.0).outputs[0].logprobs[0]
    assert next(iter(token)) == 77
    assert {t: e.logprob for t, e in token.items() if t != 77} == {t: e.logprob for t, e in plain.items()}
    assert token[77].rank > 2


def test_every_token_of_a_stop_string_that_is_cut_off_takes_its_logprobs_along(llm):
    full = one(llm, logprobs=1).outputs[0]
    stop = llm.get_tokenizer().decode(full.token_ids[4:6]).strip()[-1]
    cut = one(llm, logprobs=1, stop=stop).outputs[0]
    assert len(cut.logprobs) == len(cut.token_ids) < 12


def test_a_stream_shows_the_log_probabilities_so_far(llm):
    seen = list(llm.stream(PROMPT, SamplingParams(**FREE, logprobs=1, prompt_logprobs=0)))
    lengths = [len(o.outputs[0].logprobs) for o in seen]
    assert lengths == [len(o.outputs[0].token_ids) for o in seen]
    assert lengths[0] < lengths[-1] == 12
    assert seen[-1].outputs[0].logprobs[: lengths[0]] == seen[0].outputs[0].logprobs
    assert len(seen[-1].prompt_logprobs) == len(seen[-1].prompt_token_ids)


def test_a_request_may_leave_the_prefix_cache_unread(folder):
    with LLM(folder, dtype="float32", block_size=4) as llm:
        prompt = {"prompt_token_ids": [3 + i for i in range(30)]}
        asked = {"skip_reading_prefix_cache": True}
        assert one(llm, prompt, **asked).num_cached_tokens == 0
        found = one(llm, prompt)  # the first one has left its prefix
        assert found.num_cached_tokens >= 24
        assert one(llm, prompt, **asked).num_cached_tokens == 0
        assert one(llm, prompt, prompt_logprobs=1).num_cached_tokens == 0
        assert one(llm, prompt, **asked).outputs[0].token_ids == found.outputs[0].token_ids


def test_spaces_between_special_tokens_can_be_left_out():
    from vllm_core.engine.detokenizer import Detokenizer

    class Spaced:
        """As decoders that join tokens with spaces; 100 and on are special."""

        def decode(self, ids, skip_special_tokens=True):
            return " ".join(f"<{i}>" if i >= 100 else f"w{i}" for i in ids if i < 100 or not skip_special_tokens)

    def text(**options):
        detokenizer = Detokenizer(Spaced(), [1], **options)
        return "".join(detokenizer.push(i) for i in [2, 100, 101, 3, 102, 103, 4]) + detokenizer.flush()

    assert text(skip_special_tokens=False) == " w2 <100> <101> w3 <102> <103> w4"
    assert text(skip_special_tokens=False, spaces_between_special_tokens=False) == " w2 <100><101> w3 <102><103> w4"
    assert text(spaces_between_special_tokens=False) == " w2 w3 w4"


def test_recommended_penalties_act(folder, model, tmp_path):
    import json
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 1.5, "min_p": 0.1}))
    with LLM(str(copy), dtype="float32") as llm:
        assert (llm.get_default_sampling_params().repetition_penalty, llm.get_default_sampling_params().min_p) == (
            1.5,
            0.1,
        )
        got = one(llm, repetition_penalty=1.5)
    ids = got.prompt_token_ids[:]
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    penalise = RepetitionPenaltyLogitsProcessor(1.5)
    with torch.inference_mode():
        for token in got.outputs[0].token_ids:
            known = torch.tensor([ids])
            assert int(penalise(known, model(known).logits[:, -1]).argmax()) == token
            ids.append(token)
