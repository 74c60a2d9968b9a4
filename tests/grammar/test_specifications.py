"""What requests may ask for, before any backend sees it."""

from __future__ import annotations

import json

import pytest

from tests.grammar.toy import choices
from vllm_core import SamplingParams, StructuredOutputsParams
from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.engine.choose_grammars import choose_grammars, read_config
from vllm_core.engine.row_sampling import RowSamplings
from vllm_core.engine.schema_checks import close_objects
from vllm_core.plugins import Selector, load_catalog, read_policy
from vllm_core.plugins.errors import PluginError

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"json": '{"a"'}, "json is no JSON"),
        ({"json": "[1]"}, "must be a table"),
        ({"json": '{"a":' * 200 + "1" + "}" * 200}, "more than 128 levels"),
        ({"json": "[" * 60_000}, "no JSON"),
        ({"json": {"enum": list(range(20_000))}}, "more than 128 levels or 16,384 values"),
        ({"json": {"$ref": "http://elsewhere/schema"}}, "nothing is fetched from elsewhere"),
        ({"json": {"properties": {"a": {"$ref": "file:///etc/passwd"}}}}, "nothing is fetched from elsewhere"),
        ({"structural_tag": "{"}, "structural_tag is no JSON"),
        ({"regex": "a\0"}, "characters that are no text"),
        ({"regex": "\ud800"}, "characters that are no text"),
        ({"choice": ["a", "\udfff"]}, "characters that are no text"),
        ({"regex": "a", "disable_fallback": 1}, "disable_fallback must be True or False"),
        ({"json": {}, "whitespace_pattern": "x" * 1000}, "whitespace_pattern must be a short"),
        ({"json": {}, "whitespace": ""}, "has no field 'whitespace'; did you mean 'whitespace_pattern'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(given, said):
    with pytest.raises(ValueError, match=said):
        SamplingParams(structured_outputs=given)


def test_choices_that_are_there_twice_count_once():
    assert StructuredOutputsParams(choice=["a", "b", "a"]).specification == '["a", "b"]'


def test_a_schema_may_be_text_a_table_or_true():
    for given in (OBJECT, json.dumps(OBJECT)):
        assert json.loads(StructuredOutputsParams(json=given).specification) == OBJECT
    assert StructuredOutputsParams(json=True).specification == "true"


def test_objects_that_name_properties_have_no_others_unless_they_say_so():
    closed = {**OBJECT, "additionalProperties": False}
    assert close_objects(OBJECT) == closed
    for inner in ("items", "additionalProperties"):
        assert close_objects({inner: OBJECT}) == {inner: closed}
    assert close_objects({"anyOf": [OBJECT, {"type": "null"}]}) == {"anyOf": [closed, {"type": "null"}]}
    assert close_objects({"$defs": {"properties": OBJECT}}) == {"$defs": {"properties": closed}}
    for open_one in (
        {"type": "object"},
        {**OBJECT, "additionalProperties": True},
        {**OBJECT, "unevaluatedProperties": False},
        {**OBJECT, "patternProperties": {"^x": {}}},
        {"allOf": [OBJECT, OBJECT]},
        {**OBJECT, "anyOf": [{"required": ["b"]}]},
        {"enum": [{"properties": {}}]},
        {"const": OBJECT},
        True,
    ):
        assert close_objects(open_one) == open_one


def of(config, **given):
    samplings = RowSamplings(
        vocab_size=9, max_logprobs=-1, eos_token_ids=frozenset([1]), tokenizer=object(), grammars=config
    )
    return samplings.of(SamplingParams(structured_outputs=given), 0).grammar


def test_the_engine_s_setting_and_the_request_both_may_say_no():
    spec = of(choices("Toy"), choice=["a"])
    assert (spec.fallback, spec.any_whitespace) == (True, True)
    strict = choices("Toy", disable_fallback=True, disable_any_whitespace=True)
    assert not of(strict, choice=["a"]).fallback
    assert not of(strict, choice=["a"]).any_whitespace
    spec = of(choices("Toy"), choice=["a"], disable_fallback=True, disable_any_whitespace=True)
    assert (spec.fallback, spec.any_whitespace) == (False, False)


def test_additional_properties_are_the_setting_s_unless_the_request_decides():
    wanted = StructuredOutputsParams(json=OBJECT)
    assert "additionalProperties" in wanted.spec(closed=True).text
    assert "additionalProperties" not in wanted.spec(closed=False).text
    for own in (True, False):
        other = StructuredOutputsParams(json=OBJECT, disable_additional_properties=own)
        for setting in (True, False):
            assert ("additionalProperties" in other.spec(closed=setting).text) == own


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": 1}, "backend must be str"),
        ({"backnd": "auto"}, 'did you mean "backend"'),
        ({"reasoning_parser": "x"}, "--reasoning-parser"),
        ({"compile_seconds": 0}, "from 0.01 to 60"),
        ({"compile_seconds": "1"}, "a number"),
        ({"compile_threads": 1.5}, "a whole number"),
        ({"cached_mib": True}, "a whole number"),
        ({"disable_fallback": "yes"}, "must be bool"),
    ],
)
def test_the_setting_is_checked_by_key(given, said):
    with pytest.raises(SettingError, match=said):
        read_config(given)


def chosen(**config):
    selector = Selector(load_catalog(read_policy({})))
    settings = EngineSettings(model="any", structured_outputs_config=config)
    return choose_grammars(selector, settings, 100), selector


def test_a_backend_that_was_named_and_is_not_there_ends_the_start():
    with pytest.raises(PluginError, match='grammar backend "outlines" was asked for'):
        chosen(backend="outlines")


def test_a_named_backend_is_the_only_one():
    pytest.importorskip("vllm_plugin_xgrammar")
    found, selector = chosen(backend="xgrammar")
    assert {tuple(b.name for b in backends) for backends in found.backends.values()} == {("xgrammar",)}
    assert {d.offer.name for d in selector.decisions} == {"xgrammar"}  # explain shows it


def test_auto_takes_the_best_and_keeps_the_others_for_what_it_refuses():
    pytest.importorskip("vllm_plugin_xgrammar")
    pytest.importorskip("vllm_plugin_llguidance")
    found, _ = chosen()
    names = [b.name for b in found.backends["json_schema"]]
    assert names[:2] == ["llguidance", "xgrammar"]
    alone, _ = chosen(disable_fallback=True)
    assert [b.name for b in alone.backends["json_schema"]] == ["llguidance"]
