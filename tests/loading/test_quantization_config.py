"""What config.json says of quantization is acted on, or refused by name."""

from __future__ import annotations

import json

import pytest

from vllm_core import LLM
from vllm_core.plugins.errors import NoOffer


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ("int8", ValueError, "\"quantization_config\" in config.json must be a table, not 'int8'"),
        ({"bits": 4}, ValueError, 'names no "quant_method", so nobody knows how weights are stored; it has bits'),
        ({"quant_method": "no-such-method"}, NoOffer, 'method "no-such-method" was asked for (quantization_config of'),
    ],
)
def test_a_quantization_that_nobody_understands_is_refused(tmp_path, value, error, says):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "quantization_config": value,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error) as refused:
        LLM(str(tmp_path), load_format="dummy", skip_tokenizer_init=True)
    assert says in str(refused.value)
