"""Quantizations that know their checkpoint: fused slots stored in different ways, and tables of embeddings."""

from __future__ import annotations

import torch

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.quantization import ParamSpec
from vllm_core.layers import DecoderAttention, GatedMLP, MergedLinear, RMSNorm, TiedHead, TokenEmbedding
from vllm_core.runner.plan import EnginePlan
from vllm_core.testing.chooser import HandChooser
from vllm_core.weights.rules import Table, rule

TABLE = Table(
    [
        rule("model.embed.{w}", "embed.{w}"),
        rule("embed.{w}", "embed.{w}"),
        rule("model.mlp.{x:gate|up|side}_proj.{w}", "mlp.{w}", slot="{x}"),
    ]
)


class Halves:
    """Numbers stored halved; "up" lies in a parameter of its own."""

    def __init__(self):
        self.asked = []

    def matrices(self, names, shape):
        self.asked.append(names)
        return self

    def embedding(self, names, shape):
        self.asked.append(names)
        return self

    def params(self, shape, dtype):
        if shape.slots == ("",):
            return [ParamSpec(name="halved", shape=(*shape.out_sizes, shape.in_size), dtype=dtype)]
        sizes = dict(zip(shape.slots, shape.out_sizes, strict=True))
        outer = ParamSpec(
            name="halved",
            shape=(sizes["gate"] + sizes.get("side", 0), shape.in_size),
            dtype=dtype,
            slots=("gate", "side"),
        )
        return [outer, ParamSpec(name="up", shape=(sizes["up"], shape.in_size), dtype=dtype, slots=("up",))]

    def loaded(self, layer):
        layer.checked = True

    def rows(self, layer, ids):
        return layer.halved[ids] * 2

    def apply(self, layer, x):
        return x @ (layer.halved * 2).T


def make_plan(quantization=None):
    args = (torch.float32, torch.device("cpu"), Device("cpu"), {}, 64, 64)
    return EnginePlan(HandChooser(), *args, quantization=quantization, weight_table=TABLE)


def test_a_fused_matrix_is_asked_for_once_with_the_names_of_each_slot():
    halves = Halves()
    MergedLinear(4, {"gate": 2, "up": 3, "side": 1}).bind(make_plan(halves), "mlp")

    assert halves.asked == [{s: [f"model.mlp.{s}_proj"] for s in ("gate", "up", "side")}]


def test_slots_fill_the_parameters_they_lie_in_and_no_others():
    layer = MergedLinear(4, {"gate": 2, "up": 3, "side": 1})
    layer.bind(make_plan(Halves()), "mlp")

    whole = (0, 4)
    assert layer.loads == {
        "halved": {
            "gate": SlotRange((2, 4), ((0, 2), whole), ((0, 2), whole)),
            "side": SlotRange((1, 4), ((0, 1), whole), ((2, 3), whole)),
        },
        "up": {"up": SlotRange((3, 4), ((0, 3), whole), ((0, 3), whole))},
    }


def test_an_embedding_and_the_head_that_shares_it_go_through_its_method():
    halves, table = Halves(), torch.randn(5, 4)
    embed, head = TokenEmbedding(5, 4), TiedHead()
    head.tie(embed)
    plan = make_plan(halves)
    embed.bind(plan, "embed")
    head.bind(plan, "head")

    assert halves.asked == [["model.embed", "embed"]]
    assert embed.loads == {"halved": {"": SlotRange((5, 4), ((0, 5), (0, 4)), ((0, 5), (0, 4)))}}
    embed.halved.copy_(table / 2)
    embed.loaded()
    head.loaded()
    assert embed.checked
    ids, x = torch.tensor([4, 0, 4]), torch.randn(3, 4)
    assert torch.equal(embed(ids), table[ids])
    assert torch.allclose(head(x), x @ table.T)


def test_without_a_method_of_its_own_an_embedding_is_dense():
    class LinearsOnly:
        def linear(self, name, shape):
            raise AssertionError("an embedding is no linear layer")

    embed = TokenEmbedding(5, 4)
    embed.bind(make_plan(LinearsOnly()), "embed")

    assert embed.method is None
    assert list(embed.loads) == ["weight"]


def test_a_fused_kernel_is_chosen_by_the_methods_of_all_its_matrices():
    """One that reads dense weights must not be taken where a skip list leaves only some of them dense."""

    class UpOnly(Halves):
        def matrices(self, names, shape):
            return self if "up" in names else None

    norm = RMSNorm(4, 1e-6)
    for quantization, says in ((None, "DenseLinear"), (UpOnly(), "UpOnly+DenseLinear"), (Halves(), "Halves")):
        mlp = GatedMLP(4, 2, norm=norm)
        mlp.bind(make_plan(quantization), "mlp")
        assert mlp.fused_shape()["linear"] == says
    attention = DecoderAttention(hidden=4, heads=1, kv_heads=1, head_dim=4, norm=norm)
    attention.bind(make_plan(UpOnly()), "attention")
    assert attention.fused_shape()["linear"] == "DenseLinear"
