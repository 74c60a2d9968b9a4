"""Many architectures through the fallback, each once: prompts beside each other, then one in chunks and by decoding.

The conformance kit runs on a few of them (test_transformers_oracle.py). Here weights are random and not tuned.
"""

from __future__ import annotations

import pytest

from vllm_core.testing.case import Case
from vllm_core.testing.reference import Reference

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
TWO_KINDS = {"sliding_window": 10, "layer_types": ["sliding_attention", "full_attention"]}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
}
ARCHITECTURES = {
    "ApertusForCausalLM": {},
    "CohereForCausalLM": {"logit_scale": 0.3, "use_qk_norm": True},
    "DeepseekV3ForCausalLM": LATENT
    | EXPERTS
    | {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
    "Ernie4_5ForCausalLM": {},
    "Exaone4ForCausalLM": TWO_KINDS,
    "Glm4ForCausalLM": {"head_dim": 8},
    "GPTBigCodeForCausalLM": {
        "vocab_size": 61, "n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "GraniteMoeForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "MixtralForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 10},
    "NemotronForCausalLM": {},
    "Olmo3ForCausalLM": TWO_KINDS,
    "OPTForCausalLM": {"ffn_dim": 48, "word_embed_proj_dim": 24},
    "Qwen2MoeForCausalLM": EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "Qwen3MoeForCausalLM": EXPERTS | {"num_experts": 4, "norm_topk_prob": True},
    "SeedOssForCausalLM": {"head_dim": 8},
    "Starcoder2ForCausalLM": {"sliding_window": 10},
    "VaultGemmaForCausalLM": TWO_KINDS | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0,
    },
}  # fmt: skip


class Untuned(Reference):
    def _tune(self, rounded, gains, seed):
        self._randomise(1.6, gains, seed)


def make_case(architecture, folder):
    import transformers

    given = ARCHITECTURES[architecture]
    found = getattr(transformers, architecture)
    known = found.config_class().to_dict()
    sizes = {} if "n_embd" in given else {name: value for name, value in SIZES.items() if name in known}
    case = Case(name=architecture, model_class=found, config=sizes | given, folder=folder, tolerance=1e-4)
    case.__dict__["reference"] = Untuned(found, case.config)
    case.reference.save(folder)
    return case


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_chunks_and_decoding_give_the_logits_of_transformers(architecture, tmp_path):
    case = make_case(architecture, tmp_path)
    served = case.served
    assert type(served.runner.model).__name__ == "TransformersForCausalLM"

    rows = [served.row(case.prompt(n)) for n in (1, 33, 16)]
    for row, got in zip(rows, served.step([(row, len(row.ids)) for row in rows]), strict=True):
        case.agree(got, row, f"a prompt of {len(row.ids)} tokens beside two others")
    served.release(*rows)

    row = served.row(case.prompt(40))
    for tokens in (17, 1, 1, 21):
        case.agree(served.step([(row, tokens)])[0], row, f"a chunk of {tokens} tokens")
