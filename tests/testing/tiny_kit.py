"""The kit on a tiny Llama: what its own tests break."""

from vllm_core.testing import ModelConformance


class Kit(ModelConformance):
    architecture = "LlamaForCausalLM"
    config = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-3,
        "max_position_embeddings": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    changes = {"rms_norm_eps": 1e-2}
