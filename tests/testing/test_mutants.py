"""Real models with one part left out fail their own conformance tests; an unchanged copy passes."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from vllm_core.weights import WeightsError

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "plugins" / "models"


@attrs.frozen
class Mutant:
    """Text of a model's file -> what becomes of it; ``tests``: file and class of its conformance tests."""

    name: str
    module: str
    model: str
    tests: tuple[str, str]
    changes: Mapping[str, str]
    variant: str = "base"


QK_RULE = 'rule("model.layers.{i}.self_attn.{x:q|k}_norm.{w}", "layers.{i}.attention.{x}_norm.{w}")'
QK_IGNORED = 'ignore("q_norm.weight", "a test"), ignore("k_norm.weight", "a test")'
GEMMA2 = ("vllm_plugin_gemma.gemma2", "Gemma2ForCausalLM", ("gemma/tests/test_gemma2_oracle.py", "TestGemma2"))
GEMMA3 = ("vllm_plugin_gemma.gemma3", "Gemma3ForCausalLM", ("gemma/tests/test_gemma3_oracle.py", "TestGemma3"))
QWEN2 = ("vllm_plugin_qwen.model", "Qwen2ForCausalLM", ("qwen/tests/test_qwen_oracle.py", "TestQwen2"))
PHI = ("vllm_plugin_phi.phi", "PhiForCausalLM", ("phi/tests/test_phi_oracle.py", "TestPhi"))
QWEN3 = ("vllm_plugin_qwen.model", "Qwen3ForCausalLM", ("qwen/tests/test_qwen_oracle.py", "TestQwen3"))
LONGROPE = ("vllm_plugin_phi.phi3", "Phi3ForCausalLM", ("phi/tests/test_phi3_oracle.py", "LongRope"))
NEOX = ("vllm_plugin_gpt.neox", "GPTNeoXForCausalLM", ("gpt/tests/test_neox_oracle.py", "TestGPTNeoX"))
GPT2 = ("vllm_plugin_gpt.gpt2", "GPT2LMHeadModel", ("gpt/tests/test_gpt2_oracle.py", "TestGPT2"))
LLAMA = ("vllm_plugin_llama.model", "LlamaForCausalLM", ("llama/tests/test_llama_oracle.py", "TestLlama"))
MISTRAL = ("vllm_plugin_llama.mistral", "MistralForCausalLM", ("llama/tests/test_mistral_oracle.py", "TestMistral"))
MUTANTS = [
    Mutant("Gemma2's cap of scores", *GEMMA2, {"soft_cap=c.attn_logit_softcapping,": ""}),
    Mutant("Gemma2's cap of logits", *GEMMA2, {", logit_cap=c.final_logit_softcapping": ""}),
    Mutant("Gemma2's alternation", *GEMMA2, {' if c.layer_types[i] == "sliding_attention" else None': ""}),
    Mutant("Gemma2's scale", *GEMMA2, {"scale=c.query_pre_attn_scalar**-0.5,": ""}),
    Mutant("Gemma3's second rope", *GEMMA3, {"c.rope_parameters[kind]": 'c.rope_parameters["full_attention"]'}),
    Mutant("Qwen2's biases", *QWEN2, {"return decoder_layer(c, i, bias=True)": "return decoder_layer(c, i)"}),
    Mutant("Qwen3's norms of q and k", *QWEN3, {"qk_norm=norm, ": ""}),
    Mutant("Qwen3's norms, and their weights ignored", *QWEN3, {"qk_norm=norm, ": "", QK_RULE: QK_IGNORED}),
    Mutant("Phi3's longrope", *LONGROPE, {"rope(config)}": '{"rope_theta": 500.0, "partial_rotary_factor": 0.75}}'},
           "long factors"),
    Mutant("Phi3's long factors", *LONGROPE, {"rope(config)}": 'rope(config) | {"long_factor": [1.0] * 3}}'},
           "long factors"),
    Mutant("Phi3's short factors", *LONGROPE, {"rope(config)}": 'rope(config) | {"short_factor": [1.0] * 3}}'},
           "short factors"),
    Mutant("GPT-NeoX's parallel residual", *NEOX,
           {"ParallelDecoderLayer(attention, mlp) if c.use_parallel_residual else ": ""}),
    Mutant("GPT2's positions", *GPT2, {" + self.positions(batch)": ""}),
    Mutant("Phi's norms of q and k", *PHI, {" if c.qk_layernorm else None": " if False else None"}, "norms of q and k"),
    Mutant("Llama's swapped biases", *LLAMA, {" bias=c.attention_bias": " bias=c.mlp_bias"}, "attention biases"),
    Mutant("Llama's own head size", *LLAMA, {"head_dim=c.head_dim": "head_dim=c.hidden_size // c.num_attention_heads"}),
    Mutant("Mistral's window", *MISTRAL, {"window=c.sliding_window,": ""}),
]  # fmt: skip


def imported(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mutated(source: str, mutant: Mutant) -> str:
    for text, instead in mutant.changes.items():
        assert source.count(text) == 1, f"{mutant.module} does not say {text!r} once"
        source = source.replace(text, instead)
    return source


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_model_without_one_part_fails(mutant, monkeypatch, tmp_path):
    file, kit_name = mutant.tests
    kit = getattr(imported("tests_of_a_model", MODELS / file), kit_name)
    case = kit.make_case(mutant.variant, tmp_path / "checkpoint")
    right = importlib.import_module(mutant.module)
    source = Path(right.__file__).read_text()
    copy = tmp_path / "copy.py"

    def run(text):
        copy.write_text(text)
        monkeypatch.setattr(right, mutant.model, getattr(imported("a_copy", copy), mutant.model))
        vars(case).pop("served", None)
        kit().test_a_whole_prompt_gives_the_references_logits(case)

    run(source)
    wrong = mutated(source, mutant)
    with pytest.raises((AssertionError, WeightsError), match=r"logits are off by|does not fit the model"):
        run(wrong)


@pytest.mark.slow
def test_the_whole_conformance_run_fails_for_gemma2_without_its_soft_cap(tmp_path):
    """As the package's author would see it: a copy of the package, its tests, pytest."""
    package, mutant = "vllm_plugin_gemma", MUTANTS[0]
    shutil.copytree(MODELS / "gemma" / package, tmp_path / package)
    model = tmp_path / package / "gemma2.py"
    model.write_text(mutated(model.read_text(), mutant))
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CORE_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "base", MODELS / mutant.tests[0]],
        env={**environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    assert "FAILED plugins/models/gemma/tests/test_gemma2_oracle.py::TestGemma2::" in done.stdout
    assert "logits are off by up to" in done.stdout
    failed = done.stdout.count("\nFAILED ")
    assert failed >= 7  # of batches, generation and the field itself
