"""Matrices that stay in a GGUF file's blocks pass the kit of quantization methods; the gguf package packs them."""

from __future__ import annotations

import gguf
import torch
from gguf_writing import T

from vllm_core.testing import QuantizationConformance, QuantizationScheme

STORED = {"quant_method": "gguf"}  # beside "types", which lists the matrices of a checkpoint


class TestGgufBlocks(QuantizationConformance):
    method = "gguf"
    schemes = {
        "Q8_0": QuantizationScheme(config=STORED, bits=8.6, loss=0.007),
        "Q4_1": QuantizationScheme(config=STORED, bits=5.1, loss=0.09),
        "Q5_0": QuantizationScheme(config=STORED, bits=5.6, loss=0.06),
    }
    sizes = ((64, 48), (128, 34))
    refused = {"no list of types": STORED}
    cannot = {"skip list": "the file says of each matrix how it is stored"}

    def config(self, scheme, names):
        return {**STORED, "types": dict.fromkeys(names, scheme)}

    def pack(self, scheme, weight):
        kind = T[scheme]
        blocks = gguf.quants.quantize(weight.numpy(), kind)
        size = gguf.GGML_QUANT_SIZES[kind][1]
        return {f"weight_{scheme.lower()}": torch.from_numpy(blocks).view(len(weight), -1, size)}

    def dequantize(self, scheme, tensors):
        (blocks,) = (tensor for name, tensor in tensors.items() if name != "bias")
        return torch.from_numpy(gguf.quants.dequantize(blocks.flatten(1).numpy(), T[scheme]))
