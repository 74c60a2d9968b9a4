"""Layers hear when their own tensors are read, so that few of them need room for what is not kept."""

from __future__ import annotations

import threading

import torch

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.quantization import ParamSpec
from vllm_core.layers import MergedLinear
from vllm_core.layers.base import Layer
from vllm_core.runner.plan import EnginePlan
from vllm_core.testing.chooser import HandChooser
from vllm_core.weights import fill_dummy, load_weights, rule

LAYERS = 24


class Rounded:
    """Keeps whole numbers of what a checkpoint stores dense; counts the layers that hold both."""

    def __init__(self):
        self.lock, self.open, self.most = threading.Lock(), 0, 0

    def linear(self, name, shape):
        return self

    def params(self, shape, dtype):
        size = (sum(shape.out_sizes), shape.in_size)
        return [
            ParamSpec(name="weight", shape=size, dtype=dtype, kept=False),
            ParamSpec(name="whole", shape=size, dtype=torch.int8, stored=False),
        ]

    def filling(self, layer):
        assert layer.weight.shape == (6, 4)
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)

    def filled(self, layer):
        layer.whole.copy_(layer.weight.round())
        with self.lock:
            self.open -= 1

    def loaded(self, layer):
        assert layer.weight.numel() == 0

    def apply(self, layer, x):
        return x @ layer.whole.to(x.dtype).T


class Model(Layer):
    weights = [rule("model.{i}.{x:gate|up}.{w}", "layers.{i}.{w}", slot="{x}")]

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(MergedLinear(4, {"gate": 3, "up": 3}) for _ in range(LAYERS))


def bound(method, device="cpu"):
    args = (torch.float32, torch.device(device), Device("cpu"), {}, 64, 64)
    plan, model = EnginePlan(HandChooser(), *args, quantization=method), Model()
    for i, layer in enumerate(model.layers):
        layer.bind(plan, f"layers.{i}")
    return model


def checkpoint(seed=0):
    torch.manual_seed(seed)
    return {f"model.{i}.{x}.weight": 9 * torch.randn(3, 4) for i in range(LAYERS) for x in ("gate", "up")}


def test_what_is_not_kept_takes_no_memory_before_and_after(memory):
    model = bound(Rounded())
    assert [(p.dtype, p.numel()) for p in model.layers[0].parameters()] == [(torch.float32, 0), (torch.int8, 24)]
    assert list(model.layers[0].loads) == ["weight"]  # "whole" is not in the checkpoint

    tensors = checkpoint()
    load_weights(model, memory(tensors))

    for i, layer in enumerate(model.layers):
        want = torch.cat([tensors[f"model.{i}.gate.weight"], tensors[f"model.{i}.up.weight"]]).round()
        assert torch.equal(layer.whole, want.to(torch.int8))
        assert layer.weight.numel() == 0


def test_few_layers_are_open_at_a_time(memory):
    method = Rounded()
    load_weights(bound(method), memory(checkpoint()))
    assert method.open == 0
    assert 1 <= method.most <= 5  # as many as threads, and one whose other tensor waits


def test_what_is_kept_stays_at_its_address_when_weights_are_read_again(memory):
    model = bound(Rounded())
    load_weights(model, memory(checkpoint(0)))
    before, first = [layer.whole.data_ptr() for layer in model.layers], model.layers[3].whole.clone()
    load_weights(model, memory(checkpoint(1)))
    assert [layer.whole.data_ptr() for layer in model.layers] == before
    assert not torch.equal(model.layers[3].whole, first)
    load_weights(model, memory(checkpoint(0)))
    assert torch.equal(model.layers[3].whole, first)


def test_random_weights_are_quantized_layer_by_layer_too():
    method = Rounded()
    model = bound(method)
    fill_dummy(model)
    assert (method.open, method.most) == (0, 1)
    assert model.layers[0].weight.numel() == 0
    assert (model.layers[0].whole != model.layers[1].whole).any()
