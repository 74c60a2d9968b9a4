"""``--from-config``: what a configuration and tensors' names say about a model, and what is said of the rest."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vllm_core.cli import main
from vllm_core.cli.template.source import NO_SHAPE, read_source
from vllm_core.cli.template.tensors import read_structure
from vllm_core.plugins.errors import PluginError

ATTENTION = tuple(f"self_attn.{x}_proj.weight" for x in "qkvo")
GATED = tuple(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down"))
ENDS = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
BASE = {
    "vocab_size": 900,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path


@pytest.fixture
def begin(folder, capsys):
    """``begin(config)`` -> (what is printed, content of a file of the package by its name)."""

    def call(config, name="heron", path="config.json"):
        folder.joinpath("config.json").write_text(json.dumps(config))
        assert main(["plugins", "new", name, "--kind", "model", "--from-config", path]) == 0
        made = folder / f"vllm-plugin-{name}"
        return capsys.readouterr().out, lambda file: next(made.rglob(file)).read_text()

    return call


def structure(*inside, ends=ENDS, prefix="model.layers.0"):
    return read_structure(dict.fromkeys([*ends, *(f"{prefix}.{name}" for name in inside)], (8, 8)))


def norms(*names):
    return structure(*ATTENTION, *GATED, *(f"{name}.weight" for name in names)).norms


def test_norms_are_told_by_which_of_the_usual_names_there_are():
    assert norms("input_layernorm", "post_attention_layernorm") == {
        "attention.norm": "input_layernorm",
        "mlp.norm": "post_attention_layernorm",
    }
    assert norms("post_attention_layernorm", "post_feedforward_layernorm") == {
        "attention.post_norm": "post_attention_layernorm",
        "mlp.post_norm": "post_feedforward_layernorm",
    }
    four = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    places = ("attention.norm", "attention.post_norm", "mlp.norm", "mlp.post_norm")
    assert norms(*four) == dict(zip(places, four, strict=True))
    assert norms("input_layernorm") == {"norm": "input_layernorm"}
    assert norms() == {}


def test_every_tensor_gets_a_rule_or_is_named():
    found = structure(*ATTENTION, *GATED, "mlp.router.weight", "self_attn.strange", prefix="decoder.blocks.7")
    assert 'rule("decoder.blocks.{i}.self_attn.{x:q|k|v}_proj.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),' in (
        found.rules
    )
    assert 'rule("lm_head.{w}", "head.{w}"),' in found.rules
    assert found.uncovered == ["decoder.blocks.{i}.mlp.router", "decoder.blocks.{i}.self_attn.strange"]


def test_fused_matrices_are_split_in_the_order_of_their_names():
    found = structure("self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight", "mlp.down_proj.weight")
    assert any('transform=Split(("q", "k", "v"))' in line for line in found.rules)
    assert any('transform=Split(("gate", "up"))' in line for line in found.rules)
    assert found.gated


def test_a_feed_forward_without_a_gate_is_told_by_its_names():
    for names in (("mlp.fc1.weight", "mlp.fc2.weight"), ("mlp.up_proj.weight", "mlp.down_proj.weight")):
        found = structure(*ATTENTION, *names)
        assert not found.gated
        assert [line.split('"')[3] for line in found.rules if ".mlp." in line] == [
            "layers.{i}.mlp.up.{w}" if "fc1" in line or "up_proj" in line else "layers.{i}.mlp.down.{w}"
            for line in found.rules
            if ".mlp." in line
        ]


def test_biases_are_seen():
    found = structure(*ATTENTION, *GATED, "self_attn.k_proj.bias", "self_attn.o_proj.bias", "mlp.down_proj.bias")
    assert found.biases == {"attention.qkv", "attention.out", "mlp"}


def test_headers_of_safetensors_are_read_and_nothing_else_of_them(folder):
    save_file({"a.weight": torch.zeros(3, 5), "b.bias": torch.zeros(7)}, folder / "model.safetensors")
    whole = folder.joinpath("model.safetensors").read_bytes()
    folder.joinpath("model.safetensors").write_bytes(whole[:-20])  # as a download that was broken off
    index = {"weight_map": {"a.weight": "model.safetensors", "c.weight": "another.safetensors"}}
    folder.joinpath("model.safetensors.index.json").write_text(json.dumps(index))
    folder.joinpath("config.json").write_text(json.dumps({"architectures": ["XForCausalLM"]}))
    assert read_source(".").tensors == {"a.weight": (3, 5), "b.bias": (7,), "c.weight": NO_SHAPE}
    assert read_source("config.json").tensors is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, (4).to_bytes(8, "little") + b"[1] "])
def test_a_file_that_is_no_safetensors_is_refused_by_name(folder, content):
    folder.joinpath("config.json").write_text(json.dumps({"architectures": ["XForCausalLM"]}))
    folder.joinpath("model.safetensors").write_bytes(content)
    with pytest.raises(PluginError, match=r"model\.safetensors is no safetensors file"):
        read_source(".")


def test_fields_that_change_what_transformers_computes_are_named_with_a_hint(begin):
    factors = {"embedding_multiplier": 12.0, "logits_scaling": 16.0, "residual_multiplier": 0.22}
    config = BASE | factors | {"architectures": ["GraniteForCausalLM"], "attention_multiplier": 0.0078}
    out, content = begin(config)
    assert "fields that matter and are not read: embedding_multiplier, logits_scaling, residual_multiplier, a" in out
    notes = content("NOTES.md")
    assert "- `residual_multiplier` = `0.22`: a factor on what each half adds: `post_norm=Scale(factor)`" in notes
    model = content("model.py")
    assert "class GraniteForCausalLM(CausalLM):" in model
    assert "bias=c.attention_bias, norm" not in model  # of the feed-forward, which has a flag of its own
    assert "bias=c.mlp_bias" in model
    assert "num_key_value_heads: int = attrs.Factory(lambda c: c.num_attention_heads, takes_self=True)" in model
    assert "rms_norm_eps: float = 1e-6" in model  # transformers' default, not this checkpoint's
    test = content("test_model.py")
    assert "reference_class" not in test
    assert '"attention bias": {"attention_bias": True},' in test


def test_what_the_arithmetic_hides_from_fields_is_read_off_the_reference(begin):
    _, content = begin(BASE | {"architectures": ["HeliumForCausalLM"]})
    assert '{**c.rope_parameters, "interleaved": True}' in content("model.py")
    _, content = begin(BASE | {"architectures": ["StableLmForCausalLM"], "layer_norm_eps": 1e-5}, name="stork")
    assert "norm = partial(LayerNorm, c.hidden_size, c.layer_norm_eps)" in content("model.py")
    assert 'return super().from_config({"partial_rotary_factor": 0.25, **config})' in content("model.py")


def test_of_an_unknown_architecture_nothing_is_pretended(begin, folder):
    config = BASE | {"architectures": ["HeronForCausalLM"], "wing_span": 3, "hop": "yes"}
    tensors = {f"model.layers.0.{name}": torch.zeros(64, 64) for name in (*ATTENTION, *GATED, "beak.weight")}
    save_file(tensors | {"model.embed_tokens.weight": torch.zeros(900, 64)}, folder / "model.safetensors")
    out, content = begin(config, path=".")
    assert "transformers has no HeronForCausalLM for this configuration: nothing was compared" in out
    assert "tensors without a rule: model.layers.{i}.beak" in out
    assert "fields whose effect is not known: wing_span, hop" in out
    assert "no name of a tensor says where the norms of a layer are" in out
    assert "wing_span" not in content("model.py")
    assert "def reference_class" in content("test_model.py")


def test_lists_and_words_are_said_to_be_untried(begin):
    out, content = begin(BASE | {"architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 0]})
    assert "fields whose effect is not known: no_rope_layers" in out
    assert "`no_rope_layers` = `[1, 0]`: layers without positions: `rotary=None` in those" in content("NOTES.md")
