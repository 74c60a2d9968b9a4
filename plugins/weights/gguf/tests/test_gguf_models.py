"""Whole models: the logits that transformers computes with the dequantized weights, through files and the engine."""

from __future__ import annotations

import attrs
import pytest
import torch
from converting import QUANTIZED_BY_GGUF, SCALES, T
from families import FAMILIES
from vllm_plugin_gguf.architectures import architecture_of
from vllm_plugin_gguf.file import GgufFile

from vllm_core import LLM, SamplingParams
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.resolve import resolve
from vllm_core.runner.build import parameter_bytes

PROMPT = 25  # tokens, more than three windows of the families


def logprobs(path, ids, weights):
    """Log-probabilities of every token at every position but the last, float32 [T - 1, vocab_size]."""
    llm = LLM(
        str(path), dtype="float32", skip_tokenizer_init=True, max_logprobs=-1, max_model_len=64, max_num_seqs=4,
        enable_prefix_caching=False, plugin={"gguf": {"weights": weights}},
    )  # fmt: skip
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=-1, detokenize=False)
    (output,) = llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)
    lines = output.prompt_logprobs[1:]
    return torch.tensor([[line[token].logprob for token in range(len(line))] for line in lines])


def resolved(path, weights):
    """All choices made; no weight is read yet."""
    return resolve(
        EngineSettings(
            model=str(path), dtype="float32", skip_tokenizer_init=True, max_model_len=64, max_num_seqs=4,
            plugin={"gguf": {"weights": weights}},
        )
    )  # fmt: skip


def planned(path, weights):
    """Bytes that the memory plan counts for weights."""
    return resolved(path, weights).memory.budget.weights


def agree(got, reference, ids, tolerance=1e-4):
    want = reference.logits(ids)[:-1]
    span = (want.max() - want.min()).item()
    assert (got - want.log_softmax(-1)).abs().max().item() <= tolerance * span
    assert want.std() > 0.5  # else anything would agree


@pytest.mark.parametrize("weights", ["dequantize", "keep"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_computes_what_transformers_does_with_the_same_numbers(tmp_path, name, weights):
    family, path = FAMILIES[name], tmp_path / "m.gguf"
    reference = family.reference()
    family.write(path, reference, T.Q8_0)
    ids = reference.prompt(PROMPT)

    got = logprobs(path, ids, weights)

    agree(got, reference, ids)


CHANGES = [
    ("llama", {"config": {"rope_theta": 510.0}}),
    ("llama", {"config": {"rms_norm_eps": 1e-3}}),
    ("llama", {"stored": {}}),
    ("mistral", {"config": {"sliding_window": 8}}),
    ("gemma", {"shifted": ""}),
    ("gemma2", {"config": {"attn_logit_softcapping": None}}),
    ("gemma2", {"config": {"final_logit_softcapping": None}}),
    ("gemma2", {"config": {"sliding_window": 8}}),
    ("gemma2", {"config": {"query_pre_attn_scalar": 31}}),
    ("gemma3", {"config": {"rope_scaling": None}}),
    ("gemma3", {"config": {"rope_local_base_freq": 9000.0}}),
    ("gemma3", {"config": {"sliding_window_pattern": 2}}),
    ("phi2", {"config": {"layer_norm_eps": 1e-3}}),
    ("phi3", {"config": {"partial_rotary_factor": 1.0}}),
    ("phi3", {"config": {"sliding_window": None}}),
    ("phi3 with LongRoPE", {"config": {"rope_scaling": None}}),
    ("phi3 with LongRoPE", {"config": {"original_max_position_embeddings": 32}}),
    ("gpt2", {"config": {"layer_norm_epsilon": 1e-2}}),
    ("gptneox", {"config": {"rotary_pct": 0.5}}),
    ("gptneox", {"config": {"use_parallel_residual": False}}),
    ("gptneox", {"stored": {}}),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=str)
def test_reading_metadata_or_rows_otherwise_would_show(tmp_path, monkeypatch, name, change):
    family, path = FAMILIES[name], tmp_path / "m.gguf"
    reference = family.reference()
    family.write(path, reference)
    arch, record = architecture_of(GgufFile(path))
    if "config" in change:
        other = attrs.evolve(record, config=lambda f: {**record.config(f), **change["config"]})
    else:
        other = attrs.evolve(record, **{k: (lambda config: {}) if k == "stored" else v for k, v in change.items()})
    monkeypatch.setattr("vllm_plugin_gguf.checkpoint.architecture_of", lambda file: (arch, other))
    ids = reference.prompt(PROMPT)

    got = logprobs(path, ids, "dequantize")

    with pytest.raises(AssertionError):
        agree(got, reference, ids)


TYPES = [*QUANTIZED_BY_GGUF, *SCALES]
LARGE = FAMILIES["llama"].config | {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "vocab_size": 61}


def large_llama(**changes):
    """Rows of 256 numbers, for the K types."""
    return attrs.evolve(FAMILIES["llama"], config={**LARGE, "num_hidden_layers": 1, **changes})


@pytest.mark.parametrize("kind", TYPES, ids=lambda k: k.name)
def test_both_ways_of_holding_weights_compute_the_same_with_every_type(tmp_path, kind):
    family, path = large_llama(tie_word_embeddings=True), tmp_path / "m.gguf"
    reference = family.reference()
    family.write(path, reference, kind)
    ids = reference.prompt(PROMPT)

    dequantized = logprobs(path, ids, "dequantize")
    kept = logprobs(path, ids, "keep")

    agree(dequantized, reference, ids)
    agree(kept, reference, ids)
    assert (kept - dequantized).abs().max() < 1e-4


def mixed(name):
    """As llama.cpp's Q4_K_M: better types where they matter, and a matrix that was left alone."""
    kinds = {"attn_v": T.Q6_K, "attn_k": T.Q5_0, "ffn_down": T.Q6_K, "ffn_gate": T.F16, "token_embd": T.Q3_K}
    return next((kind for part, kind in kinds.items() if part in name), T.Q4_K)


@pytest.mark.parametrize("change", [{}, {"attention_bias": True}, {"num_attention_heads": 8, "head_dim": 32}])
def test_slots_of_one_fused_matrix_may_have_types_of_their_own(tmp_path, change):
    family, path = large_llama(**change), tmp_path / "m.gguf"
    reference = family.reference()
    family.write(path, reference, mixed)
    ids = reference.prompt(PROMPT)

    got = logprobs(path, ids, "keep")

    agree(got, reference, ids)
    qkv = resolved(path, "keep").build.make_runner()[0].model.get_submodule("layers.0.attention.qkv")
    assert {n: set(s) for n, s in qkv.loads.items() if n != "bias"} == {
        "weight_q4_k": {"q"}, "weight_q5_0": {"k"}, "weight_q6_k": {"v"},
    }  # fmt: skip


def test_kept_weights_take_the_memory_that_the_file_takes(tmp_path):
    family, path = large_llama(), tmp_path / "m.gguf"
    reference = family.reference()
    family.write(path, reference, T.Q4_0)
    numbers = sum(p.numel() for p in reference.model.parameters() if p.dim() == 2)
    vectors = sum(p.numel() for p in reference.model.parameters() if p.dim() == 1)

    runner, _ = resolved(path, "keep").build.make_runner()

    assert parameter_bytes(runner.model) == planned(path, "keep") == numbers * 18 // 32 + vectors * 4
    assert planned(path, "dequantize") == (numbers + vectors) * 4


@pytest.mark.slow
def test_smollm2_says_the_same_whichever_way_its_weights_are_held(smollm2):
    prompt, params = "The capital of France is", SamplingParams(temperature=0.0, max_tokens=32, ignore_eos=True)
    texts = []
    for weights in ("dequantize", "keep"):
        llm = LLM(smollm2, dtype="float32", max_model_len=64, plugin={"gguf": {"weights": weights}})
        (output,) = llm.generate([prompt], params, use_tqdm=False)
        texts.append(output.outputs[0].token_ids)

    assert texts[0] == texts[1]
    assert len(texts[0]) == 32
    assert planned(smollm2, "keep") < 97e6 < 538e6 < planned(smollm2, "dequantize")
