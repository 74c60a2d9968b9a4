"""The kit of quantization methods on all three names."""

from __future__ import annotations

import attrs
from int8_references import config, in_words, meant, out_of_words, packed, unpacked

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
        "static inputs": "scales of inputs that were found beforehand are not read",
    }
    refused = {
        "4 bits": config(config_groups={"g": {"targets": ["Linear"], "weights": {"num_bits": 4}}}),
        "floats": config(format="float-quantized"),
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


class TestPacked(TestCompressedTensors):
    schemes = {
        "W8A16": QuantizationScheme(config=config(inputs=False, format="pack-quantized"), bits=8.6, loss=0.008),
    }
    sizes = ((64, 48), (56, 34))
    refused = {}

    def pack(self, scheme, weight):
        return in_words(packed(weight))

    def dequantize(self, scheme, tensors):
        return unpacked(out_of_words(tensors))


class TestPackedWithRowsThatDoNotFillWords(TestPacked):
    schemes = {"W8A16": attrs.evolve(TestPacked.schemes["W8A16"], bits=8.7)}
    sizes = ((50, 34),)
    cannot = {"row shards": "a rank would begin inside a word of four numbers"}
