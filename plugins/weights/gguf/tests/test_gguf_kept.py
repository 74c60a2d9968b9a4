"""Products with matrices that stay in blocks, held to the kit. `test_gguf_models.py` has the K types."""

from __future__ import annotations

import gguf
import torch

from vllm_core.testing import QuantizationConformance, QuantizationScheme

T = gguf.GGMLQuantizationType
LOSS = {T.F16: 4e-4, T.BF16: 3e-3, T.Q8_0: 0.01, T.Q5_1: 0.04, T.Q5_0: 0.05, T.Q4_1: 0.085, T.Q4_0: 0.1}
"""Type -> error of a product of normally distributed numbers, of its norm."""


def scheme(kind):
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    return QuantizationScheme(config={"quant_method": "gguf"}, bits=8 * size / numbers, loss=LOSS[kind])


class TestKeptBlocks(QuantizationConformance):
    method = "gguf"
    schemes = {kind.name: scheme(kind) for kind in LOSS}
    sizes = [(64, 48), (128, 34)]
    refused = {"a checkpoint that is no GGUF file": {"quant_method": "gguf", "bits": 4}}
    cannot = {"skip list": "a GGUF file says of each matrix how it is stored"}

    def config(self, scheme, names):
        return {"quant_method": "gguf", "types": dict.fromkeys(names, scheme)}

    def pack(self, scheme, weight):
        kind = T[scheme]
        blocks = gguf.quants.quantize(weight.numpy(), kind)
        size = gguf.GGML_QUANT_SIZES[kind][1]
        return {f"weight_{scheme.lower()}": torch.from_numpy(blocks.view("uint8")).view(len(weight), -1, size)}

    def dequantize(self, scheme, tensors):
        (blocks,) = tensors.values()
        return torch.from_numpy(gguf.quants.dequantize(blocks.flatten(1).numpy(), T[scheme]))
