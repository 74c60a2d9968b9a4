"""hf_overrides: fields merged into config.json's tables, or a function of the configuration."""

import pytest

from vllm_core.engine.model_config import ModelConfigError, model_config, plain_overrides

STORED = {
    "architectures": ["X"],
    "hidden_size": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "inner": {"a": 1, "b": 2}},
    "text_config": {"vocab_size": 5},
}


def test_tables_are_merged_and_other_values_replaced():
    config = model_config(STORED, {"hidden_size": 9, "rope_parameters": {"inner": {"b": 3}}, "text_config": None})
    assert config["hidden_size"] == 9
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e4, "inner": {"a": 1, "b": 3}}
    assert config["text_config"] is None
    assert STORED["rope_parameters"]["inner"] == {"a": 1, "b": 2}


def test_a_slip_in_a_table_is_named_with_its_path():
    with pytest.raises(ModelConfigError, match=r'no "text_config.vocab_sise"; did you mean "text_config.vocab_size"'):
        model_config(STORED, {"text_config": {"vocab_sise": 7}})


def test_a_function_gets_fields_as_attributes_and_keys_and_what_it_changes_is_kept_as_fields():
    def change(config):
        config.hidden_size = config["hidden_size"] * 2
        config.rope_parameters.inner.a = 7
        config.update({"brand_new": {"x": [1]}})
        del config.rope_parameters.rope_theta
        return config

    config = model_config(STORED, change)
    assert config["hidden_size"] == 16
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": None, "inner": {"a": 7, "b": 2}}
    assert type(config["rope_parameters"]) is dict
    plain = plain_overrides(STORED, change)
    assert plain == {
        "hidden_size": 16,
        "rope_parameters": {"rope_theta": None, "inner": {"a": 7}},
        "brand_new": {"x": [1]},
    }
    assert model_config(STORED, plain) == config
    assert STORED["hidden_size"] == 8


def test_a_function_may_return_a_table_of_its_own():
    assert model_config(STORED, lambda config: {"architectures": ["Y"]})["architectures"] == ["Y"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda config: None, "must return the configuration that it was given, not None"),
        (lambda config: config.no_such, 'failed: AttributeError: config.json has no "no_such"'),
        (lambda config: {**config, "hiden_size": 3}, 'did you mean "hidden_size"'),
    ],
)
def test_a_function_that_fails_or_slips_is_told_by_name(function, message):
    with pytest.raises(ModelConfigError, match=message):
        model_config(STORED, function)
