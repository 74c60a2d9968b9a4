"""The kit holds a model to the fields of its config: those it reads, those it should, and what they default to."""

from __future__ import annotations

import attrs
import pytest
import vllm_plugin_llama.model as right

from tests.testing.tiny_kit import Kit


def test_a_field_that_is_declared_and_not_used_is_found(serve):
    class Deaf(right.LlamaForCausalLM):
        @classmethod
        def from_config(cls, config):
            return super().from_config({**config, "rms_norm_eps": 1e-3})

    (change,) = Kit.all_changes()
    with pytest.raises(AssertionError, match=r"rms_norm_eps = 0\.01 makes no difference"):
        Kit().test_a_changed_config_field_breaks_the_comparison({"base": serve(Deaf)}, change)


def test_a_change_that_the_engine_refuses_proves_nothing(case):
    class Typo(Kit):
        changes = {"hidden_act": "gelub"}

    (change,) = Typo.all_changes()
    with pytest.raises(AssertionError, match=r"hidden_act = 'gelub': the engine refuses this value"):
        Kit().test_a_changed_config_field_breaks_the_comparison({"base": case}, change)


def test_a_change_to_the_same_value_is_refused(case):
    class Same(Kit):
        changes = {"rms_norm_eps": 1e-3}

    (change,) = Same.all_changes()
    with pytest.raises(AssertionError, match="rms_norm_eps has this value already"):
        Kit().test_a_changed_config_field_breaks_the_comparison({"base": case}, change)


def test_every_field_must_be_spoken_for(case):
    with pytest.raises(AssertionError, match=r"LlamaForCausalLM reads attention_bias, head_dim, hidden_act,"):
        Kit().test_every_config_field_is_changed_or_explained(case)

    class Told(Kit):
        unchanged = {a.name: "a test" for a in attrs.fields(right.Config) if a.name != "rms_norm_eps"}

    Told().test_every_config_field_is_changed_or_explained(case)
    Told.unchanged["hiden_act"] = "a typo"
    with pytest.raises(AssertionError, match="has no hiden_act"):
        Told().test_every_config_field_is_changed_or_explained(case)
    del Told.unchanged["hiden_act"]
    Told.unchanged["hidden_act"] = ""
    with pytest.raises(AssertionError, match="no reason for hidden_act"):
        Told().test_every_config_field_is_changed_or_explained(case)


def test_a_field_that_only_transformers_reads_is_named(serve):
    kept = {a.name: None for a in attrs.fields(right.Config) if a.name not in ("hidden_act", "mlp_bias")}

    class Blind(right.LlamaForCausalLM):
        Config = attrs.make_class("Config", list(kept))

    case = serve(Blind)
    with pytest.raises(AssertionError, match="LlamaForCausalLM reads hidden_act, mlp_bias, and Blind"):
        Kit().test_no_field_that_transformers_reads_is_overlooked(case)

    class Told(Kit):
        unread = {"hidden_act": "a test", "mlp_bias": "a test"}

    Told().test_no_field_that_transformers_reads_is_overlooked(case)


def test_fields_changed_at_once_must_be_changed_alone_as_well(case):
    class Together(Kit):
        unchanged = {a.name: "a test" for a in attrs.fields(right.Config) if a.name not in ("head_dim", "mlp_bias")}
        changes = {("head_dim", "mlp_bias"): (16, True), "mlp_bias": True}

    with pytest.raises(AssertionError, match="LlamaForCausalLM reads head_dim: give"):
        Together().test_every_config_field_is_changed_or_explained(case)


def test_a_variant_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="Kit has no variant 'llama4'; it has base"):
        Kit.make_case("llama4", tmp_path)


def test_a_default_that_is_not_transformers_own_is_found(serve):
    @attrs.frozen(kw_only=True)
    class Config(right.Config):
        rms_norm_eps: float = 1e-5

    class Other(right.LlamaForCausalLM):
        pass

    Other.Config = Config
    with pytest.raises(AssertionError, match=r"rms_norm_eps = 1e-05 where config.json has none, and LlamaConfig 1e-06"):
        Kit().test_a_config_without_a_field_means_what_it_means_to_transformers(serve(Other))


def test_a_config_field_that_transformers_does_not_know_is_refused(tmp_path):
    class Typo(Kit):
        config = Kit.config | {"rms_norm_epz": 1e-3}

    with pytest.raises(ValueError, match="LlamaConfig has no field 'rms_norm_epz'; the nearest is 'rms_norm_eps'"):
        assert Typo.make_case("base", tmp_path).reference


def test_a_list_gives_several_changes_and_a_tuple_several_fields_at_once():
    class Many(Kit):
        changes = {"a": [1, 2], "tied.b": {"x": 1}, ("tied.c", "tied.d"): [(3, 4), (5, 6)]}

    assert [(c.variant, c.values) for c in Many.all_changes()] == [
        ("base", {"a": 1}),
        ("base", {"a": 2}),
        ("tied", {"b": {"x": 1}}),
        ("tied", {"c": 3, "d": 4}),
        ("tied", {"c": 5, "d": 6}),
    ]
    Many.changes = {("a", "tied.b"): (1, 2)}
    with pytest.raises(pytest.UsageError, match="several variants"):
        Many.all_changes()
