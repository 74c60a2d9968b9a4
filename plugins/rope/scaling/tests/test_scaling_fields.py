"""Every field matters, and a wrong one is refused by its name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from vllm_plugin_rope_scaling import provides, rope_variant
from vllm_plugin_rope_scaling.fields import COMMON
from vllm_plugin_rope_scaling.kinds import ALIASES, KINDS

from vllm_core.interfaces.queries import RopeQuery
from vllm_core.plugin import Offer, Refusal, load_target

BASE = {"rope_theta": 500.0, "original_max_position_embeddings": 64, "max_position_embeddings": 256, "factor": 4.0}
FACTORS = {"short_factor": [1.1] * 8, "long_factor": [2.1] * 8}
GIVEN = {
    "linear": [BASE],
    "ntk": [BASE, BASE | {"mixed_b": 0.6}],
    "dynamic": [BASE, BASE | {"alpha": 50.0}],
    "yarn": [BASE | {"beta_fast": 20.0, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False}],
    "deepseek_yarn": [BASE | {"beta_fast": 4.0}],
    "longrope": [BASE | FACTORS, BASE | FACTORS | {"attention_factor": 1.5}],
}
OTHER = {
    "rope_theta": 900.0, "partial_rotary_factor": 0.5, "interleaved": True, "original_max_position_embeddings": 32,
    "max_position_embeddings": 512, "factor": 5.0, "alpha": 60.0, "mixed_b": 0.9, "beta_fast": 5.0, "beta_slow": 0.3,
    "truncate": True, "attention_factor": 1.9, "mscale": 0.4, "mscale_all_dim": 0.3, "attn_factor": 1.2,
    "extrapolation_factor": 0.8, "apply_yarn_scaling": False, "short_factor": [1.3] * 8, "long_factor": [2.3] * 8,
    "short_mscale": 1.4, "long_mscale": 1.4,
}  # fmt: skip


def ask(kind, params, length=256):
    """The offer's table as plain numbers, or the refusal's reason."""
    query = RopeQuery(rope_type=kind, head_dim=16, params=params, max_position=length, max_model_len=length)
    answer = rope_variant(query)
    if isinstance(answer, Refusal):
        assert (answer.name, "--hf-overrides" in answer.remedy) == (kind, True)
        return answer.reason
    assert isinstance(answer, Offer)
    made = load_target(answer.target)(16, {**params, **answer.options}, 8, torch.device("cpu"))
    return made.cos.tolist(), made.sin.tolist(), made.interleaved


@pytest.mark.parametrize("kind", KINDS)
def test_another_value_of_any_field_gives_another_table(kind):
    silent = {
        name
        for name in {**COMMON, **KINDS[kind].takes}
        if all(ask(kind, _fit(g, name), n) == ask(kind, g, n) for g in GIVEN[kind] for n in (64, 256))
    }
    # The lengths are read where they stand in for one another or for a factor that is not given.
    lengths = {"max_position_embeddings", "original_max_position_embeddings"}
    plain = {"linear": lengths, "ntk": lengths}
    assert silent <= plain.get(kind, {"max_position_embeddings"})
    if kind in ("yarn", "longrope"):
        left_out = {name: value for name, value in GIVEN[kind][0].items() if name != "factor"}
        assert ask(kind, left_out | {"max_position_embeddings": 512}) != ask(kind, left_out)
    if kind in ("yarn", "deepseek_yarn", "dynamic"):
        left_out = {n: v for n, v in GIVEN[kind][0].items() if n != "original_max_position_embeddings"}
        assert ask(kind, left_out | {"max_position_embeddings": 128}) != ask(kind, left_out)


def _fit(given, name):
    changed = given | {name: OTHER[name]}
    if name == "partial_rotary_factor":  # half as many frequencies
        changed |= {n: changed[n][:4] for n in FACTORS if n in changed}
    return changed


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
    assert words in ask(kind, GIVEN[kind][0] | change)


def test_types_of_others_are_left_to_them():
    for kind in ("default", "llama3", "mrope"):
        assert rope_variant(RopeQuery(rope_type=kind, head_dim=16, params=BASE, max_position=8)) is None


def test_what_it_lists_is_what_it_offers():
    listed = {p.name for p in provides()}
    assert listed == KINDS.keys() | ALIASES.keys()
    for name in listed:
        query = RopeQuery(rope_type=name, head_dim=16, params=BASE | FACTORS, max_position=8)
        assert rope_variant(query) is not None


def test_the_plugin_module_imports_without_torch():
    code = "import sys, vllm_plugin_rope_scaling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
