"""Packed products against float64, and what packing leaves behind."""

from __future__ import annotations

import attrs
import pytest
import torch
import transformers
import vllm_plugin_cpu_linear
from vllm_plugin_cpu_linear.kernel import PackedLinear

from vllm_core import LLM, SamplingParams
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import Offer, Refusal
from vllm_core.weights import fill_dummy, load_weights

QUERY = OpQuery(
    op="linear", dtype="float32", device=Device("cpu"), shape={"in_size": 48, "out_size": 32, "bias": False}
)
BF16 = not isinstance(vllm_plugin_cpu_linear.op_kernel(attrs.evolve(QUERY, dtype="bfloat16")), Refusal)
in_bf16 = pytest.param("bfloat16", 5e-3, marks=pytest.mark.skipif(not BF16, reason="no bfloat16 in oneDNN here"))


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), in_bf16])
@pytest.mark.parametrize("tokens", [0, 1, 2, 7, 33, 200])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 32), (1, 5), (577, 131)])
@pytest.mark.parametrize("biased", [False, True])
def test_products_are_those_of_float64(dtype, bound, tokens, inputs, outputs, biased):
    torch.manual_seed(tokens)
    kind = getattr(torch, dtype)
    x, weight = torch.randn(tokens, inputs).to(kind), torch.randn(outputs, inputs).to(kind)
    bias = torch.randn(outputs).to(kind) if biased else None
    kernel = PackedLinear(QUERY)
    packed = kernel.pack(weight)
    assert packed.shape == weight.shape
    got = kernel(x, packed, bias)
    want = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert got.dtype == kind
    assert got.shape == want.shape
    assert (got.double() - want).norm() <= bound * max(want.norm(), 1)


def test_a_slice_of_a_larger_tensor_is_multiplied_as_its_copy():
    kernel, wide = PackedLinear(QUERY), torch.randn(9, 100)
    weight = kernel.pack(torch.randn(32, 48))
    assert torch.equal(kernel(wide[:, 10:58], weight), kernel(wide[:, 10:58].contiguous(), weight))


def test_what_is_offered_and_what_is_refused():
    ask = vllm_plugin_cpu_linear.op_kernel
    assert isinstance(ask(QUERY), Offer)
    assert ask(attrs.evolve(QUERY, op="rms_norm")) is None
    assert ask(attrs.evolve(QUERY, device=Device("cuda"))) is None
    refused = ask(attrs.evolve(QUERY, dtype="float16"))
    assert isinstance(refused, Refusal)
    assert "float16 is neither" in refused.reason


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        tie_word_embeddings=request.param,
        attention_bias=True,
    )
    path = tmp_path_factory.mktemp("tiny")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def test_a_model_answers_as_without_it_and_holds_each_weight_once(folder):
    prompts = [{"prompt_token_ids": [3 + i, 5, 7 * i % 97]} for i in range(5)]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    settings = {"skip_tokenizer_init": True, "dtype": "float32", "max_model_len": 64}
    answers = []
    for packed in (True, False):
        block = ["cpu-native", *([] if packed else ["cpu-linear"])]  # the former goes first where it can
        with LLM(folder, plugins={"block": block}, **settings) as llm:
            chosen = {
                d.provided.plugin for d in llm.built.decisions if d.hook == "op_kernel" and d.query.op == "linear"
            }
            assert chosen == ({"cpu-linear"} if packed else set())
            answers.append([o.outputs[0].token_ids for o in llm.generate(prompts, params, use_tqdm=False)])
            model = llm.built.executor._runner.model
            assert (model.get_parameter("layers.0.mlp.down.weight").numel() == 0) == packed
            assert model.get_parameter("embedding.weight").numel() == 97 * 32
    assert answers[0] == answers[1]


def test_weights_can_be_read_again(folder):
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    with LLM(folder, skip_tokenizer_init=True, dtype="float32", max_model_len=64, enable_prefix_caching=False) as llm:
        before = llm.generate([3, 5, 7], params, use_tqdm=False)[0].outputs[0].token_ids
        model, source = llm.built.executor._runner.model, llm.built.executor._build.checkpoint.source
        fill_dummy(model, seed=1)
        between = llm.generate([3, 5, 7], params, use_tqdm=False)[0].outputs[0].token_ids
        load_weights(model, source)
        assert llm.generate([3, 5, 7], params, use_tqdm=False)[0].outputs[0].token_ids == before != between
