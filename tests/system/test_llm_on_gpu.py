"""The core alone on a CUDA device, reference ops only: what the CPU says, the GPU says."""

import pytest
import torch
import transformers

from vllm_core import LLM, SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=211,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def answers(checkpoint):
    """Token ids by device and loop, of 40 mixed requests with a cache in which they do not all fit."""
    make = torch.Generator().manual_seed(1)
    prompts = [{"prompt_token_ids": torch.randint(0, 211, (3 + 5 * i,), generator=make).tolist()} for i in range(40)]
    params = [
        SamplingParams(temperature=0.8 * (i % 2), top_k=20, seed=i, max_tokens=8 + i % 17, ignore_eos=True)
        for i in range(40)
    ]

    def run(device, **settings):
        llm = LLM(
            str(checkpoint),
            device=device,
            dtype="float32",
            skip_tokenizer_init=True,
            max_num_seqs=16,
            max_num_batched_tokens=128,
            max_model_len=256,
            kv_cache_memory=60 * 16 * 3 * 2 * 2 * 16 * 4,  # 60 pages of 16 tokens: 3 layers, K and V, 2 heads of 16
            **settings,
        )
        try:
            return [o.outputs[0].token_ids for o in llm.generate(prompts, params, use_tqdm=False)]
        finally:
            llm.shutdown()

    return {
        "cpu": run("cpu"),
        "overlapped": run("cuda"),
        "plain": run("cuda", async_scheduling=False),
    }


@pytest.mark.parametrize("loop", ["overlapped", "plain"])
def test_the_gpu_gives_the_tokens_of_the_cpu_in_float32(answers, loop):
    assert answers[loop] == answers["cpu"]
