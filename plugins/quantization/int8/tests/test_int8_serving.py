"""A tiny Llama with 8-bit weights in the engine: how it is chosen, its logits, its memory, what is refused."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys

import pytest
import torch
import transformers
from int8_references import config, in_words, meant, packed, unpacked
from safetensors.torch import load_file, save_file

from vllm_core import LLM, AsyncLLM, SamplingParams
from vllm_core.plugins.errors import NoOffer
from vllm_core.testing.compare import assert_agree, distance
from vllm_core.testing.served import Served
from vllm_core.weights import fill_dummy, load_weights

TINY = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
    "attention_bias": True,
}
IDS = [(7 * i + 3) % 97 for i in range(60)]
SAME = 0.01  # measured: 0.0026
NEAR = 0.1  # of the range of the dense logits; measured: 0.046 for weights alone, 0.061 with inputs


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY)).eval()


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("dense")
    reference.save_pretrained(path)
    return path


@torch.no_grad()
def logits_of(model):
    return model(torch.tensor([IDS])).logits[0]


def served_logits(folder, **settings):
    served = Served(folder, settings=settings)
    row = served.row(IDS)
    return served.step([(row, len(IDS))])[0], served


def method_of(served, path):
    return type(served.runner.model.get_submodule(path).method).__name__


def with_weights(reference, change):
    """The model with every matrix but the head and the embeddings replaced by ``change`` of it."""
    model = copy.deepcopy(reference)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.data = change(module.weight.data).float()
    return model


def test_weights_alone_give_the_logits_of_the_rounded_model(reference, folder):
    got, served = served_logits(folder, quantization="int8_per_channel_weight_only")
    assert_agree(got, logits_of(with_weights(reference, meant)), 1e-5, "rounded weights in transformers")
    assert 1e-3 < distance(got, logits_of(reference)) < NEAR
    assert method_of(served, "layers.0.mlp.down") == "Int8Weights"
    assert method_of(served, "head") == "DenseLinear"


def test_weights_and_inputs_give_the_logits_of_a_model_that_rounds_both(reference, folder):
    got, _ = served_logits(folder, quantization="int8")
    rounding = with_weights(reference, meant)
    for name, module in rounding.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(lambda _, x: (meant(x[0].flatten(0, 1)).float().view_as(x[0]),))
    # An input in the middle between two steps may fall to either side.
    assert distance(got, logits_of(rounding)) < SAME
    assert 1e-3 < distance(got, logits_of(reference)) < NEAR


def test_matrices_of_the_users_list_stay_dense(reference, folder):
    everything = {"int8": {"ignore": ["*_proj"]}}
    got, _ = served_logits(folder, quantization="int8", plugin=everything)
    assert_agree(got, logits_of(reference), 1e-5, "all skipped")
    got, served = served_logits(folder, quantization="int8", plugin={"int8": {"ignore": ["layers.1.mlp.down_proj"]}})
    methods = [method_of(served, f"layers.{i}.mlp.down") for i in (0, 1)]
    assert methods == ["Int8WeightsAndInputs", "DenseLinear"]
    assert 1e-3 < distance(got, logits_of(reference)) < NEAR


@pytest.mark.parametrize(
    ("inputs", "stored_as"), [(True, "int-quantized"), (False, "int-quantized"), (False, "pack-quantized")]
)
def test_a_compressed_checkpoint_is_served_without_being_asked_for(reference, folder, tmp_path, inputs, stored_as):
    tensors = load_file(folder / "model.safetensors")
    for name in [n for n in tensors if n.endswith("_proj.weight")]:
        stored = packed(tensors.pop(name))
        stored["weight_scale"] = stored["weight_scale"].bfloat16()
        stored = in_words(stored) if stored_as == "pack-quantized" else stored
        tensors |= {name.replace("weight", parameter): tensor for parameter, tensor in stored.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    plain = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**plain, "quantization_config": config(inputs=inputs, format=stored_as)})
    )

    got, served = served_logits(tmp_path)

    def stored_meaning(weight):
        found = packed(weight)
        return unpacked({**found, "weight_scale": found["weight_scale"].bfloat16().float()})

    want = logits_of(with_weights(reference, stored_meaning))
    assert distance(got, want) < (NEAR if inputs else 1e-5)
    method = next(d for d in served.resolved.selector.decisions if d.hook == "quantization_method")
    assert method.offer.name == "compressed-tensors"


def test_weights_are_counted_as_they_are_held_and_can_be_read_again(folder):
    dense, quantized = served_logits(folder)[1], served_logits(folder, quantization="int8")
    before, served = quantized
    counts = [s.resolved.memory.budget.weights for s in (dense, served)]
    held = [sum(p.nbytes for p in s.runner.model.parameters()) for s in (dense, served)]
    assert counts[1] == held[1] < 0.5 * counts[0]
    model = served.runner.model
    at = {name: p.data_ptr() for name, p in model.named_parameters() if p.numel()}
    fill_dummy(model, seed=1)
    other = Served.step(served, [(served.row(IDS), len(IDS))])[0]
    assert distance(other, before) > NEAR
    load_weights(model, served.resolved.checkpoint.source)
    assert torch.equal(served.step([(served.row(IDS), len(IDS))])[0], before)
    assert at == {name: p.data_ptr() for name, p in model.named_parameters() if p.numel()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["int8", "int8_per_channel_weight_only"])
def test_greedy_tokens_do_not_depend_on_the_batch(folder, name, dtype):
    prompts = [{"prompt_token_ids": IDS[n : n + 4 + n]} for n in range(5)]
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    with LLM(str(folder), quantization=name, dtype=dtype, skip_tokenizer_init=True, max_model_len=64) as llm:
        together = llm.generate(prompts, params, use_tqdm=False)
        alone = [llm.generate([prompt], params, use_tqdm=False)[0] for prompt in prompts]
    assert [len(o.outputs[0].token_ids) for o in together] == [8] * 5
    if dtype == "float32":
        assert [o.outputs[0].token_ids for o in together] == [o.outputs[0].token_ids for o in alone]


def cli(*words):
    command = [sys.executable, "-m", "vllm_core", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_explain_names_the_method_and_its_package(folder):
    done = cli("explain", folder, "--quantization", "int8", "--skip-tokenizer-init")
    assert done.returncode == 0, done.stderr
    assert "quantization_method" in done.stdout
    assert "vllm-plugin-int8" in done.stdout


def test_a_slip_in_the_name_is_answered_with_the_nearest(folder):
    done = cli("explain", folder, "--quantization", "int9", "--skip-tokenizer-init")
    assert done.returncode != 0
    assert 'quantization method "int9" was asked for (--quantization)' in done.stderr
    assert 'did you mean "int8"' in done.stderr
    assert "Traceback" not in done.stderr


def test_quantizing_a_quantized_checkpoint_is_refused(folder, tmp_path):
    plain = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**plain, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(NoOffer, match='this one is quantized by "gptq" already') as error:
        LLM(str(tmp_path), quantization="int8", load_format="dummy", skip_tokenizer_init=True)
    assert "leave --quantization out" in str(error.value)


def test_a_pattern_that_fits_nothing_is_refused_before_anything_is_read(folder):
    with pytest.raises(ValueError, match=r"ignore: '\*\.dwon_proj' fits no matrix"):
        LLM(str(folder), quantization="int8", plugin={"int8": {"ignore": ["*.dwon_proj"]}}, skip_tokenizer_init=True)


def test_part_of_a_fused_matrix_is_not_skipped_in_silence(folder):
    with pytest.raises(
        ValueError, match=r"stored in\n?.*different ways:\n  model\.layers\.0\.self_attn\.q_proj: dense"
    ):
        LLM(str(folder), quantization="int8", plugin={"int8": {"ignore": ["*.q_proj"]}}, skip_tokenizer_init=True)


def test_an_engine_in_a_process_of_its_own_quantizes_too(folder):
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    settings = {
        "quantization": "int8",
        "plugin": {"int8": {"ignore": ["*.down_proj"]}},
        "dtype": "float32",
        "skip_tokenizer_init": True,
        "max_model_len": 64,
    }

    async def generate():
        engine = AsyncLLM(str(folder), **settings)
        try:
            return [o async for o in engine.generate({"prompt_token_ids": IDS[:9]}, params, "a request")][-1]
        finally:
            engine.shutdown()

    with LLM(str(folder), **settings) as llm:
        want = llm.generate([{"prompt_token_ids": IDS[:9]}], params, use_tqdm=False)[0].outputs[0].token_ids
    assert asyncio.run(generate()).outputs[0].token_ids == want
