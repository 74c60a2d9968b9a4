"""The kit of quantization methods on all three names."""

from __future__ import annotations

from int8_references import config, meant, packed, unpacked

from vllm_core.testing import QuantizationConformance, QuantizationScheme

DTYPES = {"float32": 1e-6, "bfloat16": 8e-3, "float16": 1e-3}
DENSE = {"embeddings": "tables of embeddings stay dense, as does a head that shares one"}


class TestWeightsMadeWhileLoading(QuantizationConformance):
    method = "int8_per_channel_weight_only"
    schemes = {"online": QuantizationScheme(bits=8.6, loss=0.008)}
    tolerance = DTYPES
    dense = ("lm_head", "embed_out")
    cannot = DENSE

    def dequantize(self, scheme, tensors):
        return meant(tensors["weight"])


class TestWeightsAndInputs(TestWeightsMadeWhileLoading):
    method = "int8"
    schemes = {"online": QuantizationScheme(bits=8.6, loss=0.012)}

    def inputs_of(self, scheme, x):
        return meant(x)


class TestCompressedTensors(QuantizationConformance):
    method = "compressed-tensors"
    schemes = {
        "W8A8": QuantizationScheme(config=config(), bits=8.6, loss=0.012),
        "W8A16": QuantizationScheme(config=config(inputs=False), bits=8.6, loss=0.008),
    }
    tolerance = DTYPES
    dense = ("lm_head",)
    cannot = {
        **DENSE,
        "packed 8-bit weights": "the format pack-quantized is not read",
        "static inputs": "scales of inputs that were found beforehand are not read",
    }
    refused = {
        "4 bits": config(config_groups={"g": {"targets": ["Linear"], "weights": {"num_bits": 4}}}),
        "packed": config(format="pack-quantized"),
        "cache": config(kv_cache_scheme={"num_bits": 8}),
    }

    def pack(self, scheme, weight):
        return packed(weight)

    def dequantize(self, scheme, tensors):
        return unpacked(tensors)

    def inputs_of(self, scheme, x):
        return meant(x) if scheme == "W8A8" else x

    def ignoring(self, scheme, names):
        return {"ignore": [*names, "lm_head"]}, {}
