"""Two right quantizations, packed nibbles and 8 bits made while loading, and the kit that holds them to float64."""

from __future__ import annotations

import torch

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.quantization import ParamSpec
from vllm_core.plugins.errors import NoOffer
from vllm_core.testing import QuantizationConformance, QuantizationScheme

GROUP = 16  # inputs a scale


class Nibbles:
    """Two 4-bit numbers less 8 a byte, the lower half first; a scale for 16 inputs."""

    def params(self, shape, dtype):
        out = sum(shape.out_sizes)
        specs = [
            ParamSpec(name="packed", shape=(out, shape.in_size // 2), dtype=torch.uint8, in_pack=2),
            ParamSpec(name="scales", shape=(out, shape.in_size // GROUP), dtype=torch.float32, in_pack=GROUP),
        ]
        return specs + [ParamSpec(name="bias", shape=(out,), dtype=dtype, in_dim=None)] * shape.bias

    def loaded(self, layer):
        pass

    def weight(self, layer):
        numbers = torch.stack([layer.packed & 15, layer.packed >> 4], -1).flatten(1).float() - 8
        return (numbers.unflatten(1, (-1, GROUP)) * layer.scales[..., None]).flatten(1)

    def apply(self, layer, x):
        y = x.float() @ self.weight(layer).T
        return (y if "bias" not in layer._parameters else y + layer.bias.float()).to(x.dtype)


class Bytes:
    """8 bits and a scale a row, made of a dense weight; activations are rounded to 8 bits, row by row."""

    def params(self, shape, dtype):
        size = (sum(shape.out_sizes), shape.in_size)
        specs = [
            ParamSpec(name="weight", shape=size, dtype=dtype, kept=False),
            ParamSpec(name="numbers", shape=size, dtype=torch.int8, stored=False),
            ParamSpec(name="scales", shape=(size[0], 1), dtype=torch.float32, in_dim=None, stored=False),
        ]
        return specs + [ParamSpec(name="bias", shape=(size[0],), dtype=dtype, in_dim=None)] * shape.bias

    def filled(self, layer):
        numbers, scales = rounded(layer.weight)
        layer.numbers.copy_(numbers)
        layer.scales.copy_(scales)

    def loaded(self, layer):
        pass

    def apply(self, layer, x):
        numbers, scales = rounded(x)
        y = (numbers @ layer.numbers.float().T) * scales * layer.scales.T
        return (y if "bias" not in layer._parameters else y + layer.bias.float()).to(x.dtype)


def rounded(x):
    scales = x.float().abs().amax(-1, keepdim=True) / 127
    return torch.nan_to_num(x.float() / scales).round(), scales


class Quantization:
    """Of a checkpoint: ``methods`` by quant_method, "" for a dense one."""

    methods = {"nibbles": Nibbles, "": Bytes}

    def __init__(self, config):
        self.config = config

    def linear(self, name, shape):
        return None if name in self.config.get("ignore", ()) else self.methods[self.config.get("quant_method", "")]()


class Asked:
    """Stands for a plugin that is installed."""

    module = "vllm_core.plugin"
    torch_device, device = torch.device("cpu"), Device("cpu")

    def __init__(self, quantization=Quantization, name="nibbles"):
        self.target, self.name = quantization, name

    def quantization(self, config, dtype, settings=None, *, by_user=False):
        if config.get("quant_method", self.name) != self.name or config.get("bits", 4) == 5:
            raise NoOffer(f"{config} is not read")
        return self.target({**(settings or {}), **config})


class Kit(QuantizationConformance):
    method = "nibbles"
    schemes = {
        "nibbles": QuantizationScheme(config={"quant_method": "nibbles"}, bits=6.1, loss=0.11),
        "bytes": QuantizationScheme(bits=8.6, loss=0.013),
    }
    sizes = ((64, 48), (96, 40))
    refused = {"five bits": {"quant_method": "nibbles", "bits": 5}}

    @classmethod
    def ask(cls):
        return Asked()

    def pack(self, scheme, weight):
        groups = weight.unflatten(1, (-1, GROUP))
        scales = groups.abs().amax(-1) / 7
        numbers = torch.nan_to_num(groups / scales[..., None]).round().flatten(1) + 8
        return {"packed": (numbers[:, 0::2] + numbers[:, 1::2] * 16).to(torch.uint8), "scales": scales}

    def dequantize(self, scheme, tensors):
        if scheme == "bytes":
            numbers, scales = rounded(tensors["weight"])
            return numbers * scales
        out, half = tensors["packed"].shape
        numbers = torch.empty(out, half, 2)
        numbers[..., 0], numbers[..., 1] = tensors["packed"] % 16, tensors["packed"] // 16
        return (numbers.flatten(1) - 8) * tensors["scales"].repeat_interleave(GROUP, 1)

    def inputs_of(self, scheme, x):
        if scheme == "nibbles":
            return x
        numbers, scales = rounded(x)
        return numbers * scales


def kit_with(**methods):
    """The kit on a quantization whose method of that scheme is this class."""
    chosen = {"nibbles": methods.get("nibbles", Nibbles), "": methods.get("bytes", Bytes)}
    kit = Kit()
    kit._asked = Asked(type("Quantization", (methods.get("quantization", Quantization),), {"methods": chosen}))
    return kit
