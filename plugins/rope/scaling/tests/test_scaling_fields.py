"""A wrong field is refused by its name, and what is listed is offered."""

from __future__ import annotations

import pytest
from vllm_plugin_rope_scaling import provides, rope_variant
from vllm_plugin_rope_scaling.kinds import ALIASES, KINDS

from vllm_core.interfaces.queries import RopeQuery
from vllm_core.plugin import Refusal

BASE = {"rope_theta": 500.0, "original_max_position_embeddings": 64, "max_position_embeddings": 256, "factor": 4.0}
FACTORS = {"short_factor": [1.1] * 8, "long_factor": [2.1] * 8}
GIVEN = {kind: BASE | (FACTORS if kind == "longrope" else {}) for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("linear", {"factor": None}, "lack 'factor'; they have"),
        ("linear", {"rope_theta": None}, "lack 'rope_theta'"),
        ("linear", {"factor": [1.0, 2.0]}, "'factor' must be a number above 0, not [1.0, 2.0]"),
        ("linear", {"factor": True}, "'factor' must be a number above 0, not True"),
        ("ntk", {"factor": 0.5}, "'factor' must be a number of 1 or more, not 0.5"),
        ("ntk", {"mixed_b": float("nan")}, "'mixed_b' must be a number above 0, not nan"),
        ("dynamic", {"factor": None}, "lack 'factor' or 'alpha'"),
        ("dynamic", {"alpha": 0}, "'alpha' must be a number above 0, not 0"),
        ("dynamic", {"original_max_position_embeddings": None, "max_position_embeddings": None},
         "lack 'original_max_position_embeddings' or 'max_position_embeddings' or 'alpha'"),
        ("yarn", {"beta_fst": 3}, "have 'beta_fst', which this type does not read; did you mean 'beta_fast'?"),
        ("yarn", {"mrope_section": [2, 3, 3]}, "have 'mrope_section', which this type does not read; known are "),
        ("yarn", {"factor": None, "original_max_position_embeddings": None},
         "lack 'factor' or 'original_max_position_embeddings'"),
        ("yarn", {"truncate": "no"}, "'truncate' must be true or false, not 'no'"),
        ("yarn", {"attention_factor": -1}, "'attention_factor' must be a number above 0"),
        ("yarn", {"original_max_position_embeddings": 64.5}, "must be a whole number of 2 or more, not 64.5"),
        ("deepseek_yarn", {"factor": None}, "lack 'factor'"),
        ("deepseek_yarn", {"mscale": "1"}, "'mscale' must be a number of 0 or more, not '1'"),
        ("longrope", {"long_factor": None}, "lack 'long_factor'"),
        ("longrope", {"long_factor": 2.0}, "'long_factor' must be a list of numbers above 0, not 2.0"),
        ("longrope", {"short_factor": [1.0] * 7}, "'short_factor' must have 8 numbers, one a frequency, not 7"),
        ("longrope", {"original_max_position_embeddings": None}, "lack 'original_max_position_embeddings'"),
        ("longrope", {"factor": None, "max_position_embeddings": None, "short_mscale": 1.1},
         "lack 'attention_factor' or 'factor' or 'max_position_embeddings' or 'long_mscale'"),
        ("linear", {"partial_rotary_factor": 0.2}, "3 of 16 elements of a head would be rotated"),
        ("dynamic", {"partial_rotary_factor": 0.125}, "2 of 16 elements of a head would be rotated"),
        ("linear", {"rope_theta": 1.0}, "'rope_theta' must be a number above 1"),
    ],
)  # fmt: skip
def test_a_missing_or_wrong_field_is_refused_by_name(kind, change, words):
    query = RopeQuery(rope_type=kind, head_dim=16, params=GIVEN[kind] | change, max_position=256, max_model_len=256)
    answer = rope_variant(query)
    assert isinstance(answer, Refusal)
    assert (answer.name, "--hf-overrides" in answer.remedy) == (kind, True)
    assert words in answer.reason


def test_types_of_others_are_left_to_them():
    for kind in ("default", "llama3", "mrope"):
        assert rope_variant(RopeQuery(rope_type=kind, head_dim=16, params=BASE, max_position=8)) is None


def test_what_it_lists_is_what_it_offers():
    listed = {p.name for p in provides()}
    assert listed == KINDS.keys() | ALIASES.keys()
    for name in listed:
        query = RopeQuery(rope_type=name, head_dim=16, params=BASE | FACTORS, max_position=8)
        assert rope_variant(query) is not None
