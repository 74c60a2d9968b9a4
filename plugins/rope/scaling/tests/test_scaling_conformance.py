"""Each scaled rope type under the RoPE conformance kit: transformers' frequencies, or those of its publication."""

from __future__ import annotations

import math

import torch
from vllm_plugin_rope_scaling.fields import COMMON as COMMON_FIELDS
from vllm_plugin_rope_scaling.kinds import KINDS

from vllm_core.testing import RopeConformance

TRAINED = 64  # tokens of a sequence, in pre-training
THETA = {"rope_theta": 500.0}
COMMON = {"rope_theta": 510.0, "partial_rotary_factor": 0.5, "interleaved": True}
UNHEARD_OF = ({"unheard_of": 1}, "'unheard_of', which this type does not read")
HALF = {"half a head": {"partial_rotary_factor": 0.5}, "interleaved": {"interleaved": True}}


def plain(params, head_dim, stretch=1.0):
    """float64 [R / 2], of a base that is ``stretch`` times as large."""
    size = int(head_dim * params.get("partial_rotary_factor", 1.0))
    return (params["rope_theta"] * stretch) ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)


class TestLinear(RopeConformance):
    rope_type = "linear"
    params = {**THETA, "factor": 2.5}
    variants = {**HALF, "not stretched": {"factor": 1.0}}
    changes = {**COMMON, "factor": 2.6}
    refuses = [({"factor": None}, "lack 'factor'"), ({"factor": 0}, "must be a number above 0"), UNHEARD_OF]


class TestDynamic(RopeConformance):
    """A table is that of the longest sequence: at the length of pre-training, just beyond and far beyond it."""

    rope_type = "dynamic"
    params = {**THETA, "factor": 2.5}
    beside = {"max_position_embeddings": TRAINED}
    lengths = (TRAINED // 2, TRAINED, TRAINED + 1, 7 * TRAINED)
    variants = {**HALF, "not stretched": {"factor": 1.0}}
    changes = {**COMMON, "factor": 2.6, "max_position_embeddings": 70}
    refuses = [
        ({"factor": None}, "lack 'factor' or 'alpha'"),
        ({"max_position_embeddings": None}, "lack 'original_max_position_embeddings' or 'max_position_embeddings'"),
        UNHEARD_OF,
    ]
    cannot = {"a base that grows with a sequence": "keys in the cache are rotated once; README.md says what is done"}


class TestDynamicWithBothLengths(TestDynamic):
    beside = {"max_position_embeddings": 7 * TRAINED, "original_max_position_embeddings": TRAINED}
    changes = {"original_max_position_embeddings": 70}
    refuses = ()

    @classmethod
    def reference(cls, params, head_dim, longest):
        trained = {"max_position_embeddings": params["original_max_position_embeddings"]}
        return super().reference({**params, **trained}, head_dim, longest)


class TestDynamicByAlpha(RopeConformance):
    """Hunyuan's: one base for all lengths, of which the other fields in its checkpoints say nothing."""

    rope_type = "dynamic"
    params = {
        **THETA,
        "alpha": 50.0,
        "factor": 1.0,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    variants = {**HALF, "a large one": {"alpha": 1000.0}}
    changes = {**COMMON, "alpha": 51.0}
    refuses = [({"alpha": -1}, "'alpha' must be a number above 0")]

    @classmethod
    def reference(cls, params, head_dim, longest):
        size = 2 * len(plain(params, head_dim))
        return plain(params, head_dim, params["alpha"] ** (size / (size - 2))), 1.0


class TestNTK(RopeConformance):
    """kexue.fm/archives/9706: a larger base, and the slowest frequency divided by the factor exactly."""

    rope_type = "ntk"
    params = {**THETA, "factor": 4.0}
    variants = HALF
    changes = {**COMMON, "factor": 4.1, "mixed_b": 0.9}
    refuses = [({"factor": 0.5}, "must be a number of 1 or more"), ({"mixed_b": 0}, "'mixed_b' must be"), UNHEARD_OF]

    @classmethod
    def reference(cls, params, head_dim, longest):
        spread = plain(params, head_dim, params["factor"])
        return spread / params["factor"] ** (1 / len(spread)), 1.0


class TestMixedNTK(TestNTK):
    """The same page: frequency m of M divided by exp(a * m ** b), the last of them by the factor."""

    params = {**TestNTK.params, "mixed_b": 0.625}
    variants = {**HALF, "even": {"mixed_b": 1.0}}
    changes = {"factor": 4.1, "mixed_b": 0.7}

    @classmethod
    def reference(cls, params, head_dim, longest):
        frequencies, b = plain(params, head_dim), params["mixed_b"]
        a = math.log(params["factor"]) / len(frequencies) ** b
        return frequencies / torch.exp(a * torch.arange(1, len(frequencies) + 1) ** b), 1.0


class TestYarn(RopeConformance):
    rope_type = "yarn"
    params = {**THETA, "factor": 4.0, "original_max_position_embeddings": TRAINED}
    variants = {
        **HALF,
        "magnitudes": {"mscale": 0.7, "mscale_all_dim": 1.3},
        "a given magnitude": {"attention_factor": 1.7},
        "not cut to whole frequencies": {"truncate": False, "beta_fast": 4.0, "beta_slow": 0.5},
        "no factor": {"factor": None, "max_position_embeddings": 4 * TRAINED},
        "no length": {"original_max_position_embeddings": None, "max_position_embeddings": TRAINED},
    }
    changes = {
        **COMMON,
        "factor": 4.1,
        "original_max_position_embeddings": 16,
        "beta_fast": 4.0,
        "beta_slow": 0.25,
        "truncate": False,
        "attention_factor": 1.9,
        "magnitudes.mscale": 0.8,
        "magnitudes.mscale_all_dim": 1.2,
        ("mscale", "mscale_all_dim"): (0.7, 1.3),
        "no factor.max_position_embeddings": 5 * TRAINED,
        "no length.max_position_embeddings": 16,
    }
    unchanged = {
        "mscale": "counts beside mscale_all_dim only",
        "mscale_all_dim": "counts beside mscale only",
    }
    refuses = [
        ({"factor": None}, "lack 'factor' or 'max_position_embeddings'"),
        ({"truncate": "no"}, "'truncate' must be true or false, not 'no'"),
        ({"beta_fst": 8.0}, "did you mean 'beta_fast'?"),
        UNHEARD_OF,
    ]


def ramped(params, head_dim):
    """Frequencies as in DeepSeek-V2's modeling_deepseek.py and jquesnelle/yarn."""
    frequencies, trained = plain(params, head_dim), params["original_max_position_embeddings"]
    size = 2 * len(frequencies)

    def dimension(turns):
        return size * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(params["rope_theta"]))

    low = max(math.floor(dimension(params.get("beta_fast", 32))), 0)
    high = min(math.ceil(dimension(params.get("beta_slow", 1))), size - 1)
    ramp = ((torch.arange(size // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    mask = (1 - ramp) * params.get("extrapolation_factor", 1.0)
    return frequencies / params["factor"] * (1 - mask) + frequencies * mask


def magnitude(factor, weight=1.0):
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


class TestYarnsOlderFields(RopeConformance):
    """Of jquesnelle/yarn and vLLM, which transformers does not read."""

    rope_type = "yarn"
    params = {**TestYarn.params, "attn_factor": 1.1, "extrapolation_factor": 0.6}
    variants = {"not scaled": {"apply_yarn_scaling": False}}
    changes = {"attn_factor": 1.2, "extrapolation_factor": 0.7, "apply_yarn_scaling": False, "factor": 4.1}

    @classmethod
    def reference(cls, params, head_dim, longest):
        paper = magnitude(params["factor"]) if params.get("apply_yarn_scaling", True) else 1.0
        return ramped(params, head_dim), paper * params["attn_factor"]


class TestDeepseekYarn(RopeConformance):
    """Magnitudes count as they are, given or not: 1 and 0 where left out."""

    rope_type = "deepseek_yarn"
    aliases = ("deepseek_llama_scaling",)
    params = {**THETA, "factor": 40.0, "original_max_position_embeddings": TRAINED}
    variants = {
        **HALF,
        "magnitudes": {"mscale": 0.707, "mscale_all_dim": 1.3},
        "no magnitude": {"mscale": 0},
        "all fields": {"beta_fast": 4.0, "beta_slow": 0.5, "attn_factor": 1.1, "extrapolation_factor": 0.6},
    }
    changes = {
        **COMMON,
        "factor": 41.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 4.0,
        "beta_slow": 0.25,
        "mscale": 0.9,
        "mscale_all_dim": 0.5,
        "attn_factor": 1.1,
        "extrapolation_factor": 0.9,
    }
    refuses = [({"factor": None}, "lack 'factor'"), ({"mscale": "1"}, "'mscale' must be a number"), UNHEARD_OF]

    @classmethod
    def reference(cls, params, head_dim, longest):
        factor = params["factor"]
        scaling = magnitude(factor, params.get("mscale", 1)) / magnitude(factor, params.get("mscale_all_dim", 0))
        return ramped(params, head_dim), scaling * params.get("attn_factor", 1.0)


class TestLongRope(RopeConformance):
    """One table an engine: the long factors if its longest sequence exceeds the length of pre-training."""

    rope_type = "longrope"
    aliases = ("su",)
    params = {
        **THETA,
        "short_factor": [1.0 + 0.1 * i for i in range(8)],
        "long_factor": [1.5 + i for i in range(8)],
    }
    beside = {"max_position_embeddings": 4 * TRAINED, "original_max_position_embeddings": TRAINED}
    lengths = (TRAINED // 2, TRAINED, TRAINED + 1, 4 * TRAINED)
    variants = {
        "a factor": {"factor": 3.0},
        "a small factor": {"factor": 0.5},
        "a given magnitude": {"attention_factor": 1.7},
        "half a head": {"partial_rotary_factor": 0.5, "short_factor": [1.1] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]},
        "interleaved": {"interleaved": True},
    }
    changes = {
        "rope_theta": 510.0,
        "interleaved": True,
        ("partial_rotary_factor", "short_factor", "long_factor"): (0.5, [1.1] * 4, [2.0] * 4),
        "short_factor": [[1.0] * 8],
        "long_factor": [[2.0] * 8],
        "factor": 2.0,
        "attention_factor": 1.7,
        "original_max_position_embeddings": 2 * TRAINED,
        "max_position_embeddings": 5 * TRAINED,
    }
    unchanged = {"partial_rotary_factor": "it changes with both lists, which have a number for each frequency"}
    refuses = [
        ({"long_factor": None}, "lack 'long_factor'"),
        ({"short_factor": [1.0] * 7}, "'short_factor' must have 8 numbers, one a frequency, not 7"),
        ({"original_max_position_embeddings": None}, "lack 'original_max_position_embeddings'"),
        UNHEARD_OF,
    ]
    cannot = {"short factors beside long ones": "keys in the cache are rotated once; README.md says what is done"}


class TestPhiMoEsMagnitudes(TestLongRope):
    """Its checkpoints give a magnitude for each list; transformers' PhiMoE multiplies cosines and sines by it."""

    variants = {"both": {"attention_factor": 1.7}}
    beside = {**TestLongRope.beside, "short_mscale": 1.2, "long_mscale": 1.3}
    changes = {"short_mscale": 1.25, "long_mscale": 1.35}
    refuses = ()

    @classmethod
    def reference(cls, params, head_dim, longest):
        which = "long" if longest > TRAINED else "short"
        factors = torch.tensor(params[f"{which}_factor"], dtype=torch.float64)
        return plain(params, head_dim) / factors, params[f"{which}_mscale"]


def test_every_field_that_a_type_takes_is_changed_here():
    kits = [kit for kit in globals().values() if isinstance(kit, type) and kit is not RopeConformance]
    kits = [kit for kit in kits if issubclass(kit, RopeConformance)]
    for kind, known in KINDS.items():
        changed = {
            name for kit in kits if kit.rope_type == kind for change in kit.all_changes() for name in change.fields
        }
        # Every type may have both lengths beside it in config.json; not all go by them.
        lengths = {"max_position_embeddings", "original_max_position_embeddings"}
        assert {*COMMON_FIELDS, *known.takes} - changed <= lengths, kind
