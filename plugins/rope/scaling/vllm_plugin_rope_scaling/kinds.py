"""The rope types of this package and their fields. No torch here."""

from __future__ import annotations

from vllm_plugin_rope_scaling.fields import FACTORS, FLAG, FROM_0, FROM_1, POSITIVE, Kind

_HERE = "vllm_plugin_rope_scaling"
_LENGTHS = ("original_max_position_embeddings", "max_position_embeddings")
_RAMP = {"factor": FROM_1, "beta_fast": POSITIVE, "beta_slow": POSITIVE, "extrapolation_factor": POSITIVE}

KINDS = {
    "linear": Kind(
        target=f"{_HERE}.stretched:linear_rope",
        summary="positions divided by a factor",
        needs=("rope_theta", "factor"),
        takes={"factor": POSITIVE},
    ),
    "ntk": Kind(
        target=f"{_HERE}.stretched:ntk_rope",
        summary="a larger base, the slowest frequency divided by a factor",
        needs=("rope_theta", "factor"),
        takes={"factor": FROM_1, "mixed_b": POSITIVE},
    ),
    "dynamic": Kind(
        target=f"{_HERE}.stretched:dynamic_rope",
        summary="a base made larger by a factor and the sequence length, or by alpha",
        needs=("rope_theta", ("factor", "alpha"), (*_LENGTHS, "alpha")),
        takes={"factor": FROM_1, "alpha": POSITIVE},
        unread=frozenset({"beta_fast", "beta_slow", "mscale", "mscale_all_dim"}),  # Hunyuan's, beside alpha
        reads_length=True,
    ),
    "yarn": Kind(
        target=f"{_HERE}.yarn:yarn_rope",
        summary="YaRN: slow frequencies divided, fast ones kept, an attention factor",
        needs=("rope_theta", ("factor", "original_max_position_embeddings"), ("factor", "max_position_embeddings"),
               _LENGTHS),
        takes={**_RAMP, "truncate": FLAG, "attention_factor": POSITIVE, "mscale": FROM_0, "mscale_all_dim": FROM_0,
               "attn_factor": POSITIVE, "apply_yarn_scaling": FLAG},
    ),
    "deepseek_yarn": Kind(
        target=f"{_HERE}.yarn:deepseek_yarn_rope",
        summary="YaRN with DeepSeek's attention factor",
        needs=("rope_theta", "factor", _LENGTHS),
        takes={**_RAMP, "mscale": FROM_0, "mscale_all_dim": FROM_0, "attn_factor": POSITIVE},
    ),
    "longrope": Kind(
        target=f"{_HERE}.longrope:long_rope",
        summary="LongRoPE: each frequency divided by a factor of its own",
        needs=("rope_theta", "short_factor", "long_factor", "original_max_position_embeddings",
               ("attention_factor", "factor", "max_position_embeddings", "short_mscale"),
               ("attention_factor", "factor", "max_position_embeddings", "long_mscale")),
        takes={"short_factor": FACTORS, "long_factor": FACTORS, "factor": POSITIVE, "attention_factor": POSITIVE,
               "short_mscale": POSITIVE, "long_mscale": POSITIVE},
        reads_length=True,
    ),
}  # fmt: skip
ALIASES = {"deepseek_llama_scaling": "deepseek_yarn", "su": "longrope"}
