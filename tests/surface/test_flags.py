"""Flags made from declarations."""

import argparse

import attrs
import pytest

from vllm_core.config.convert import Given
from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.config.flags import add_flags, given_flags, split_plugin_flags
from vllm_core.config.load import load
from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Sample:
    max_things: int = setting(8192, unit="things per step", help="Most things at 100% load.", trade="Higher: more.")
    fast: bool = setting(True, help="Fast.", group="speed")
    table: dict[str, int] = setting({}, help="Numbers.", group="speed")


def parser(cls=Sample, **options):
    made = argparse.ArgumentParser(prog="x")
    add_flags(made, cls, **options)
    return made


def values(*words):
    return load(Sample, overrides=given_flags(parser().parse_args(words), Sample)).given


def test_only_flags_that_were_given_count():
    assert values() == {}
    assert values("--max-things", "5") == {"max_things": 5}


def test_a_switch_has_a_flag_for_on_and_one_for_off():
    assert values("--fast") == {"fast": True}
    assert values("--no-fast") == {"fast": False}


def test_a_table_is_json():
    assert values("--table", '{"a": 1}') == {"table": {"a": 1}}


def test_a_wrong_value_names_its_flag():
    with pytest.raises(SettingError, match=r"max_things must be a whole number, not 'x'\.\n  where   --max-things"):
        values("--max-things", "x")


def test_help_says_default_unit_and_trade_under_the_group():
    text = " ".join(parser().format_help().split())
    assert "Most things at 100% load. Default: 8192 things per step. Higher: more." in text
    assert "speed: --fast, --no-fast Fast. Default: on. --table JSON Numbers." in text


def test_every_engine_setting_but_those_skipped_has_a_flag():
    text = parser(EngineSettings, skip=("model",)).format_help()
    assert "--model " not in text
    for field in attrs.fields(EngineSettings):
        assert field.name == "model" or f"--{field.name.replace('_', '-')}" in text


def test_plugins_flags_are_taken_out_of_the_words():
    rest, found = split_plugin_flags(
        ["MODEL", "--plugin.a.work-mib", "256", "hello", "--plugin.a.fast=true", "--plugin.b.x=", "--seed", "1"]
    )
    assert rest == ["MODEL", "hello", "--seed", "1"]
    assert found == {
        "a": {
            "work_mib": Given("256", "--plugin.a.work-mib", text=True),
            "fast": Given("true", "--plugin.a.fast", text=True),
        },
        "b": {"x": Given("", "--plugin.b.x", text=True)},
    }


def test_after_a_double_dash_nothing_is_a_flag():
    assert split_plugin_flags(["--", "--plugin.a.b", "1"]) == (["--", "--plugin.a.b", "1"], {})


@pytest.mark.parametrize("words", [["--plugin.a.b"], ["--plugin.a.b", "--seed", "1"]])
def test_a_plugins_flag_needs_a_value(words):
    with pytest.raises(SettingError, match=r"--plugin\.a\.b needs a value"):
        split_plugin_flags(words)


def test_a_plugins_flag_without_a_key_is_refused():
    with pytest.raises(SettingError, match=r"must look like --plugin\.NAME\.KEY VALUE"):
        split_plugin_flags(["--plugin.a", "1"])
