"""The RoPE kit passes a table that is right and fails one that is wrong, by what is wrong with it."""

from __future__ import annotations

import itertools

import attrs
import pytest
import vllm_plugin_llama.rope as right
from vllm_plugin_llama import _LLAMA3_FIELDS

import vllm_core.testing.rope as kit
from vllm_core.testing import RopeConformance
from vllm_core.testing.rope import Changed

TABLE = "test_the_table_is_the_references_at_every_position"
HEADS = "test_heads_are_rotated_as_in_float64"
CHANGE = "test_another_value_of_a_field_gives_another_table"
DRAFTS = "test_room_for_drafts_changes_no_position"
UNREAD = "test_no_field_that_transformers_reads_is_overlooked"
PLAIN = right.llama3_rope


class Kit(RopeConformance):
    rope_type = "llama3"
    params = {
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    head_dim = 32
    variants = {"half a head": {"partial_rotary_factor": 0.5}}
    changes = {"factor": 8.1, "rope_theta": 510.0, "low_freq_factor": 1.1, "high_freq_factor": 4.1,
               "original_max_position_embeddings": 70, "partial_rotary_factor": 0.5}  # fmt: skip
    refuses = [({"factor": None}, "lack factor")]


def failing(kit=Kit) -> list[str]:
    """Names of the kit's tests that fail for some variant, length or change."""
    failed = {}
    self = kit()
    runs = [(TABLE, (v, n)) for v in ("base", "half a head") for n in kit.lengths]
    runs += [(name, (v,)) for v in ("base", "half a head") for name in (HEADS, UNREAD)]
    runs += [(DRAFTS, (v, n)) for v in ("base", "half a head") for n in kit.lengths]
    runs += [(CHANGE, (change,)) for change in kit.all_changes()]
    runs += [("test_what_is_wrong_is_refused_by_name", ()), ("test_other_names_mean_the_same", ())]
    for name, given in runs:
        try:
            getattr(self, name)(*given)
        except AssertionError:
            failed[name] = None
    return list(failed)


def wrong(monkeypatch, change):
    """The installed plugin's table, changed; ``change(table, head_dim, params, max_position)``."""

    def made(head_dim, params, max_position, device):
        return change(PLAIN(head_dim, params, max_position, device), head_dim, params, max_position)

    monkeypatch.setattr(right, "llama3_rope", made)


def test_a_right_table_passes():
    assert failing() == []


@pytest.mark.parametrize("field", _LLAMA3_FIELDS)
def test_a_field_that_is_not_read_fails(monkeypatch, field):
    def made(head_dim, params, max_position, device):
        return PLAIN(head_dim, {**params, field: Kit.params[field]}, max_position, device)

    monkeypatch.setattr(right, "llama3_rope", made)
    assert failing() == [CHANGE]


def test_another_table_fails(monkeypatch):
    wrong(monkeypatch, lambda t, *_: attrs.evolve(t, cos=t.cos * 1.001, sin=t.sin * 1.001))
    assert failing() == [TABLE, HEADS]
    wrong(monkeypatch, lambda t, *_: attrs.evolve(t, sin=-t.sin))
    assert failing() == [TABLE, HEADS]


def test_the_pairs_of_another_layout_fail(monkeypatch):
    wrong(monkeypatch, lambda t, *_: attrs.evolve(t, interleaved=True))
    assert failing() == [HEADS]


def test_a_table_that_is_too_short_or_half_precise_fails(monkeypatch):
    wrong(monkeypatch, lambda t, *_: attrs.evolve(t, cos=t.cos[:-3], sin=t.sin[:-3]))
    assert TABLE in failing()
    wrong(monkeypatch, lambda t, *_: attrs.evolve(t, cos=t.cos.bfloat16(), sin=t.sin.bfloat16()))
    assert TABLE in failing()


def test_a_table_that_goes_by_the_room_for_drafts_fails(monkeypatch):
    def made(head_dim, params, max_position, device):
        longer = {**params, "factor": params["factor"] + max_position / 10_000}
        return PLAIN(head_dim, longer, max_position, device)

    monkeypatch.setattr(right, "llama3_rope", made)
    assert {DRAFTS, TABLE} <= set(failing())


def test_the_whole_head_rotated_instead_of_a_part_fails(monkeypatch):
    def made(head_dim, params, max_position, device):
        whole = {name: value for name, value in params.items() if name != "partial_rotary_factor"}
        return PLAIN(head_dim, whole, max_position, device)

    monkeypatch.setattr(right, "llama3_rope", made)
    assert {TABLE, CHANGE} <= set(failing())


def test_a_table_that_changes_its_parameters_or_differs_the_second_time_fails(monkeypatch):
    def consumes(head_dim, params, max_position, device):
        params["factor"] = params.pop("factor") * 2
        return PLAIN(head_dim, params, max_position, device)

    monkeypatch.setattr(right, "llama3_rope", consumes)
    with pytest.raises(AssertionError, match="after the table was made of them"):
        Kit().test_a_table_is_made_again_the_same_and_leaves_what_it_reads("base")
    calls = itertools.count()
    wrong(monkeypatch, lambda t, *_: attrs.evolve(t, cos=t.cos + next(calls) * 1e-6))
    with pytest.raises(AssertionError, match="made again, cos is another"):
        Kit().test_a_table_is_made_again_the_same_and_leaves_what_it_reads("base")


def test_settings_of_the_plugin_that_it_does_not_have_are_an_error(monkeypatch):
    monkeypatch.setattr(Kit, "plugin_settings", {"stretch": 2.0})
    with pytest.raises(Exception, match='plugin "llama" has no settings'):
        Kit().table("base", 64)


def test_a_field_that_the_test_forgot_is_named(monkeypatch):
    monkeypatch.setattr(Kit, "changes", {n: v for n, v in Kit.changes.items() if n != "high_freq_factor"})
    with pytest.raises(AssertionError, match="transformers reads high_freq_factor: give `changes` another value"):
        Kit().test_no_field_that_transformers_reads_is_overlooked("base")
    monkeypatch.setattr(Kit, "unchanged", {"high_freq_factor": "a test"})
    Kit().test_no_field_that_transformers_reads_is_overlooked("base")


def test_a_change_that_is_none_is_refused():
    with pytest.raises(AssertionError, match="factor has this value already"):
        Kit().test_another_value_of_a_field_gives_another_table(Changed("base", {"factor": 8.0}))


def test_what_is_taken_in_silence_fails(monkeypatch):
    monkeypatch.setattr(Kit, "refuses", [({"factr": 3.0}, "factr")])
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        Kit().test_what_is_wrong_is_refused_by_name()
    monkeypatch.setattr(Kit, "refuses", [({"factor": None}, "is missing")])
    with pytest.raises(AssertionError, match="is refused, but not with 'is missing'"):
        Kit().test_what_is_wrong_is_refused_by_name()


def test_a_type_that_transformers_lacks_says_what_to_override():
    class Own(Kit):
        rope_type = "own"

    with pytest.raises(AssertionError, match=r'no frequencies of rope type "own".*override `reference`'):
        Own.reference(Kit.params, 32, 64)
    assert kit.selector() is kit.selector()
