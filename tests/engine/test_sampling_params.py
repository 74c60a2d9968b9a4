from __future__ import annotations

import math

import attrs
import pytest

from vllm_core.engine.sampling_params import NOT_YET, SamplingParams, unmet_defaults
from vllm_core.engine.structured_outputs import StructuredOutputsParams


def test_several_outputs_that_would_all_be_the_same_are_refused():
    assert SamplingParams(n=2).n == 2
    with pytest.raises(ValueError, match=r"n=2 outputs at temperature=0 would all be the same"):
        SamplingParams(n=2, temperature=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_k", -2),
        ("top_k", 1.5),
        ("seed", 2**63),
        ("seed", "x"),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", [1]),
        ("stop", 7),
        ("stop", ["a"] * 129),
        ("stop", "a" * 1025),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", ["a"]),
        ("stop_token_ids", 5),
        ("max_tokens", 0),
        ("max_tokens", 2.0),
        ("ignore_eos", 1),
        ("detokenize", "no"),
        ("skip_special_tokens", None),
        ("include_stop_str_in_output", "yes"),
        ("n", 0),
        ("n", 129),
        ("n", 2.0),
        ("n", True),
        ("min_p", -0.1),
        ("min_p", 1.01),
        ("repetition_penalty", 0),
        ("repetition_penalty", math.inf),
        ("presence_penalty", 2.01),
        ("frequency_penalty", -2.01),
        ("frequency_penalty", "much"),
        ("logit_bias", [1]),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", {1.5: 1}),
        ("logit_bias", {1: "x"}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", dict.fromkeys(range(5000), 1.0)),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [-1]),
        ("allowed_token_ids", 3),
        ("bad_words", [""]),
        ("bad_words", [3]),
        ("bad_words", ["a"] * 300),
        ("min_tokens", -1),
        ("min_tokens", 17),
        ("logprobs", -2),
        ("logprobs", 1.0),
        ("logprobs", False),
        ("prompt_logprobs", "all"),
        ("truncate_prompt_tokens", 0),
        ("truncate_prompt_tokens", -2),
        ("skip_reading_prefix_cache", 1),
        ("spaces_between_special_tokens", None),
        ("structured_outputs", "json"),
        ("structured_outputs", {}),
        ("structured_outputs", {"json": {}, "regex": "a"}),
        ("structured_outputs", {"jsn": {}}),
        ("structured_outputs", {"json": {"a": object()}}),
        ("structured_outputs", {"choice": "ab"}),
        ("structured_outputs", {"choice": ["a", ""]}),
        ("structured_outputs", {"regex": "a" * 100_000}),
        ("structured_outputs", {"json_object": 1}),
        ("extra_args", ["a"]),
        ("extra_args", {1: 2}),
        ("extra_args", {"a": object()}),
        ("extra_args", {"a": "x" * 70_000}),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        SamplingParams(**{field: value})


@pytest.mark.parametrize("field", NOT_YET)
def test_a_field_of_vllm_that_is_missing_is_refused_unless_it_changes_nothing(field):
    assert SamplingParams(**{field: NOT_YET[field]}) == SamplingParams()
    with pytest.raises(ValueError, match=f"{field}=7 is not supported yet"):
        SamplingParams(**{field: 7})


def test_a_mistyped_field_names_the_nearest():
    with pytest.raises(TypeError, match="no field 'temprature'; did you mean 'temperature'"):
        SamplingParams(temprature=1)
    with pytest.raises(TypeError, match="did you mean 'presence_penalty'"):
        SamplingParams(presence_penaltey=1)


def test_one_stop_string_and_a_list_of_one_are_the_same():
    assert SamplingParams(stop="END") == SamplingParams(stop=["END"])
    assert SamplingParams(stop=None, stop_token_ids=None) == SamplingParams()


def test_stop_strings_need_text():
    with pytest.raises(ValueError, match="detokenize=True"):
        SamplingParams(stop="END", detokenize=False)


def test_params_can_be_evolved_and_are_frozen():
    assert attrs.evolve(SamplingParams(top_k=3), max_tokens=None) == SamplingParams(top_k=3, max_tokens=None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        SamplingParams().top_k = 5


def test_the_generation_config_gives_defaults_and_what_is_missing_is_said():
    config = {"temperature": 0.6, "top_p": None, "max_new_tokens": 99, "do_sample": True, "typical_p": 0.9}
    config |= {"repetition_penalty": 1.05, "min_p": 0.1}
    expected = SamplingParams(temperature=0.6, max_tokens=99, top_k=3, repetition_penalty=1.05, min_p=0.1)
    assert SamplingParams.from_defaults(config, top_k=3) == expected
    assert SamplingParams.from_defaults({"top_k": 20.0}).changed() == {"top_k": 20}
    (unmet,) = unmet_defaults(config)
    assert "typical_p=0.9" in unmet


def test_a_row_gets_the_users_seed_or_the_engines():
    assert SamplingParams(seed=5).for_row(9).seed == 5
    assert SamplingParams(seed=-1).for_row(9).seed == 9
    assert SamplingParams().for_row(9).seed == 9
    assert SamplingParams(top_k=-1).for_row(0).top_k == 0


def test_a_bias_may_name_its_token_by_a_string_and_is_brought_into_range():
    params = SamplingParams(logit_bias={"7": 3, 8: -1000.0, 9: math.inf})
    assert params.logit_bias == {7: 3.0, 8: -100.0, 9: 100.0}
    assert SamplingParams(logit_bias={}) == SamplingParams()


def test_a_request_with_prompt_logprobs_reads_no_cached_prefix():
    assert SamplingParams().reads_prefix_cache
    assert SamplingParams(logprobs=5, skip_reading_prefix_cache=False).reads_prefix_cache
    assert not SamplingParams(prompt_logprobs=0).reads_prefix_cache
    assert not SamplingParams(skip_reading_prefix_cache=True).reads_prefix_cache


def test_true_asks_for_the_logprob_of_one_token():
    assert SamplingParams(logprobs=True) == SamplingParams(logprobs=1)


def test_a_row_gets_what_the_device_can_hold():
    row = SamplingParams(
        repetition_penalty=1e300, temperature=1e300, min_tokens=2, bad_words=["a"], extra_args={"b": 1}
    )
    row = row.for_row(0, stop_ids=[3], bad_words=[[5, 6]], processors=["p"])
    assert (row.repetition_penalty, row.temperature) == (1e6, 1e30)
    assert (row.stop_ids, row.bad_words, row.processors, row.extra_args) == ([3], [[5, 6]], ["p"], {"b": 1})
    assert SamplingParams().for_row(0, stop_ids=[3]).stop_ids == []


@pytest.mark.parametrize(
    ("given", "kind", "specification"),
    [
        ({"json": {"type": "object"}}, "json_schema", '{"type": "object"}'),
        ({"json": "{}"}, "json_schema", "{}"),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["a", "b"]}, "choice", '["a", "b"]'),
        ({"grammar": "root ::= x"}, "ebnf", "root ::= x"),
        ({"json_object": True}, "json_object", ""),
    ],
)
def test_structured_outputs_become_what_grammar_backends_compile(given, kind, specification):
    wanted = SamplingParams(structured_outputs=given).structured_outputs
    assert (wanted.kind, wanted.specification) == (kind, specification)
    assert wanted == StructuredOutputsParams(**given)
