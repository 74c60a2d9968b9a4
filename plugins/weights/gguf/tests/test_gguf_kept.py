"""Products with matrices that stay in blocks, held to the kit. `test_gguf_models.py` has the other K types."""

from __future__ import annotations

import gguf
import k_packing
import torch

from vllm_core.testing import QuantizationConformance, QuantizationScheme

T = gguf.GGMLQuantizationType
LOSS = {T.F16: 4e-4, T.BF16: 3e-3, T.Q8_0: 0.01, T.Q5_1: 0.04, T.Q5_0: 0.05, T.Q4_1: 0.085, T.Q4_0: 0.1, T.Q6_K: 0.02,
        T.Q4_K: 0.08}  # fmt: skip
"""Type -> error of a product of normally distributed numbers, of its norm."""


def scheme(kind):
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    return QuantizationScheme(config={"quant_method": "gguf"}, bits=8 * size / numbers, loss=LOSS[kind])


class TestKeptBlocks(QuantizationConformance):
    method = "gguf"
    schemes = {kind.name: scheme(kind) for kind in LOSS if not kind.name.endswith("K")}
    sizes = [(64, 48), (128, 34)]
    refused = {"a checkpoint that is no GGUF file": {"quant_method": "gguf", "bits": 4}}
    cannot = {"skip list": "a GGUF file says of each matrix how it is stored"}

    def config(self, scheme, names):
        return {"quant_method": "gguf", "types": dict.fromkeys(names, scheme)}

    def pack(self, scheme, weight):
        kind = T[scheme]
        blocks = self.quantize(weight.numpy(), kind)
        size = gguf.GGML_QUANT_SIZES[kind][1]
        return {f"weight_{scheme.lower()}": torch.from_numpy(blocks.view("uint8")).view(len(weight), -1, size)}

    def quantize(self, weight, kind):
        return gguf.quants.quantize(weight, kind)

    def dequantize(self, scheme, tensors):
        (blocks,) = tensors.values()
        return torch.from_numpy(gguf.quants.dequantize(blocks.flatten(1).numpy(), T[scheme]))


class TestKeptKBlocks(TestKeptBlocks):
    schemes = {kind.name: scheme(kind) for kind in (T.Q4_K, T.Q6_K)}
    sizes = [(512, 16)]

    def quantize(self, weight, kind):
        return {T.Q4_K: k_packing.q4_k, T.Q6_K: k_packing.q6_k}[kind](weight)
