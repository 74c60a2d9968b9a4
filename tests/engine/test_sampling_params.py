from __future__ import annotations

import math

import attrs
import pytest

from vllm_core.engine.sampling_params import NOT_YET, SamplingParams, unmet_defaults


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
        ("n", 2),
        ("n", True),
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
    config = {"temperature": 0.6, "top_p": None, "max_new_tokens": 99, "repetition_penalty": 1.05, "do_sample": True}
    assert SamplingParams.from_defaults(config, top_k=3) == SamplingParams(temperature=0.6, max_tokens=99, top_k=3)
    assert SamplingParams.from_defaults({"top_k": 20.0}).changed() == {"top_k": 20}
    (unmet,) = unmet_defaults(config)
    assert "repetition_penalty=1.05" in unmet


def test_a_row_gets_the_users_seed_or_the_engines():
    assert SamplingParams(seed=5).for_row(9).seed == 5
    assert SamplingParams(seed=-1).for_row(9).seed == 9
    assert SamplingParams().for_row(9).seed == 9
    assert SamplingParams(top_k=-1).for_row(0).top_k == 0
