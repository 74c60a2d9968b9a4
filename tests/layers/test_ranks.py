"""Layers split over ranks: what each holds, and that together they give what one gives."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vllm_core.distributed.dry import DryGroup
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.quantization import LinearShape, ParamSpec
from vllm_core.interfaces.weights import TensorInfo
from vllm_core.layers import ColumnLinear, LMHead, MergedLinear, QKVLinear, RowLinear, TiedHead, TokenEmbedding
from vllm_core.layers.shards import Shard, split, split_heads, split_padded
from vllm_core.layers.stack import LayerStack
from vllm_core.layers.stages import stage_ranges
from vllm_core.runner.plan import EnginePlan
from vllm_core.runner.second import SecondPlan
from vllm_core.testing.chooser import HandChooser
from vllm_core.weights import Table, WeightsError
from vllm_core.weights.copies import plan_copies

from .tiny import Config, TinyLM, random_tensors


def plan(rank=0, size=1, name="tp", quantization=None):
    groups = {name: DryGroup(rank, size)}
    args = (torch.float32, torch.device("meta"), Device("cpu"), groups, 64, 64)
    return EnginePlan(HandChooser(), *args, quantization=quantization)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    command = [sys.executable, "-m", "tests.layers.two_ranks"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    root = Path(__file__).parents[2]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)


def test_column_ranks_take_rows_of_the_checkpoints_matrix_and_row_ranks_columns():
    column, row = ColumnLinear(6, 8, bias=True), RowLinear(6, 8, bias=True)
    column.bind(plan(1, 2), "c")
    row.bind(plan(1, 2), "r")
    assert column.weight.shape == (4, 6)
    assert column.loads["weight"] == {"": SlotRange((8, 6), ((4, 8), (0, 6)), ((0, 4), (0, 6)))}
    assert column.loads["bias"] == {"": SlotRange((8,), ((4, 8),), ((0, 4),))}
    assert row.weight.shape == (8, 3)
    assert row.loads["weight"] == {"": SlotRange((8, 6), ((0, 8), (3, 6)), ((0, 8), (0, 3)))}
    assert row.loads["bias"] == {"": SlotRange((8,), ((0, 8),), ((0, 8),))}


def test_merged_slots_lie_one_after_the_other_in_each_rank():
    layer = MergedLinear(6, {"gate": 8, "up": 8})
    layer.bind(plan(1, 2), "m")
    assert layer.loads["weight"] == {
        "gate": SlotRange((8, 6), ((4, 8), (0, 6)), ((0, 4), (0, 6))),
        "up": SlotRange((8, 6), ((4, 8), (0, 6)), ((4, 8), (0, 6))),
    }


@pytest.mark.parametrize(("rank", "head"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_ranks_beyond_the_kv_heads_hold_copies(rank, head):
    layer = QKVLinear(10, heads=8, kv_heads=2, head_dim=4)
    layer.bind(plan(rank, 4), "qkv")
    assert (layer.heads, layer.kv_heads) == (2, 1)
    assert layer.loads["weight"]["q"].source[0] == (rank * 8, rank * 8 + 8)
    assert layer.loads["weight"]["k"] == SlotRange((8, 10), ((head * 4, head * 4 + 4), (0, 10)), ((8, 12), (0, 10)))
    assert layer.loads["weight"]["v"] == SlotRange((8, 10), ((head * 4, head * 4 + 4), (0, 10)), ((12, 16), (0, 10)))


def test_the_last_rank_of_a_vocabulary_ends_in_padding():
    table, head = TokenEmbedding(10, 4), LMHead(10, 4)
    table.bind(plan(3, 4), "e")
    head.bind(plan(3, 4), "h")
    for layer in (table, head):
        assert layer.weight.shape == (3, 4)
        assert layer.loads["weight"][""] == SlotRange((10, 4), ((9, 10), (0, 4)), ((0, 1), (0, 4)))
    tied = TiedHead(bias=True)
    tied.tie(table)
    tied.bind(plan(3, 4), "t")
    assert tied.bias.shape == (3,)
    assert tied.loads["bias"][""] == SlotRange((10,), ((9, 10),), ((0, 1),))
    assert split_padded(2, DryGroup(3, 4)) == Shard(2, 2, 2, 1)


def test_what_cannot_be_split_is_named():
    with pytest.raises(ValueError, match=r"heads = 6 cannot be split over 4 ranks"):
        split_heads(6, 1, DryGroup(0, 4), "heads")
    with pytest.raises(ValueError, match=r"heads = 3 cannot be repeated over 4 ranks"):
        split_heads(3, 1, DryGroup(0, 4), "heads")
    with pytest.raises(ValueError, match=r"size = 7 cannot be split over 2 ranks"):
        split(7, DryGroup(0, 2), "size")


class Packed:
    """A quantization: eight 4-bit weights an int32 along the inputs, a scale for each 4 x 8 weights."""

    def linear(self, name, shape):
        return self

    def params(self, shape: LinearShape, dtype):
        out = sum(shape.out_sizes)
        return [
            ParamSpec(name="packed", shape=(out, shape.in_size // 8), dtype=torch.int32, in_pack=8),
            ParamSpec(name="scale", shape=(out // 4, shape.in_size // 8), dtype=dtype, out_pack=4, in_pack=8),
            ParamSpec(name="step", shape=(1,), dtype=dtype, out_dim=None, in_dim=None),
        ]

    def loaded(self, layer):
        layer.checked = True

    def apply(self, layer, x):
        return x.new_zeros(*x.shape[:-1], layer.packed.shape[0])


def test_packed_parameters_are_split_by_what_they_stand_for():
    layer = MergedLinear(32, {"gate": 16, "up": 16})
    layer.bind(plan(1, 2, quantization=Packed()), "m")
    assert layer.loads["packed"]["up"] == SlotRange((16, 4), ((8, 16), (0, 4)), ((8, 16), (0, 4)))
    assert layer.loads["scale"]["up"] == SlotRange((4, 4), ((2, 4), (0, 4)), ((2, 4), (0, 4)))
    assert layer.loads["step"]["up"] == SlotRange((1,), ((0, 1),), ((0, 1),))
    row = RowLinear(32, 16)
    row.bind(plan(1, 2, quantization=Packed()), "r")
    assert row.loads["scale"][""] == SlotRange((4, 4), ((0, 4), (2, 4)), ((0, 4), (0, 2)))
    row.loaded()
    assert row.checked
    with pytest.raises(ValueError, match=r"'scale': 6 to 12 of 12 elements.* groups of 4"):
        ColumnLinear(32, 12).bind(plan(1, 2, quantization=Packed()), "c")


def test_stages_cover_all_layers_once_and_differ_by_one_at_most():
    for layers in (4, 5, 30, 61):
        for stages in (1, 2, 3, 4):
            ranges = stage_ranges([7] * layers, stages)
            assert [i for r in ranges for i in r] == list(range(layers))
            assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
            assert len(ranges[0]) == max(map(len, ranges))


def test_a_stage_with_dear_layers_or_a_large_head_has_fewer():
    def counts(*arguments, **more):
        return [len(r) for r in stage_ranges(*arguments, **more)]

    assert counts([10] * 12, 2, behind=40) == [8, 4]
    assert counts([10] * 12, 3, behind=20) == [5, 5, 2] or counts([10] * 12, 3, behind=20) == [5, 4, 3]
    assert counts([30, 10, 10, 10], 2) == [1, 3]
    assert counts([10] * 4, 2, behind=1000) == [3, 1]
    assert counts([0] * 6, 3) == [2, 2, 2]
    assert counts([10] * 12, 2, behind=40, chosen=(5, 7)) == [5, 7]


@pytest.mark.parametrize("chosen", [(5, 6), (12,), (12, 0), (4, 4, 4)])
def test_chosen_layers_that_do_not_add_up_are_refused_with_what_would_work(chosen):
    with pytest.raises(ValueError, match=r"each of 2 pipeline stages .* 12 together[^$]*--pipeline-layers 8,4"):
        stage_ranges([10] * 12, 2, behind=40, chosen=chosen)


def test_more_stages_than_layers_are_refused():
    with pytest.raises(ValueError, match=r"2 layers cannot be split over 3.*\n.*--pipeline-parallel-size 2"):
        stage_ranges([1, 1], 3)


def test_a_stage_keeps_its_layers_under_their_numbers():
    model = TinyLM(Config(layers=3, windows=(None,) * 3))
    model.bind(plan(1, 2, "pp"))
    names = {name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("layers.")}
    assert names == {"2"}
    assert isinstance(model.layers, LayerStack)
    assert model.layers.owned == range(2, 3)


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_only_the_first_stage_embeds_and_only_the_last_has_norm_and_head(tied):
    held = []
    for stage in range(3):
        model = TinyLM(Config(layers=3, windows=(None,) * 3, tied=tied))
        model.bind(plan(stage, 3, "pp"))
        held.append({name for name, _ in model.named_parameters() if not name.startswith("layers.")})
        assert model.embed(torch.zeros(4, dtype=torch.int64), None).shape == (4, 32)
    assert held[:2] == [{"embedding.weight"}, set()]
    assert held[2] == {"norm.weight", "embedding.weight" if tied else "head.weight"}


def info(name, shape):
    return TensorInfo(name, tuple(shape), "float32", 4 * math.prod(shape))


def test_tensors_of_other_stages_are_not_read_and_those_of_none_are_an_error():
    config = Config(layers=3, windows=(None,) * 3)
    tensors = {name: info(name, t.shape) for name, t in random_tensors(config).items()}
    read = []
    for stage in range(3):
        model = TinyLM(config)
        model.bind(plan(stage, 3, "pp"))
        copies, ignored = plan_copies(model, tensors)
        read.append({copy.name for copy in copies})
        assert set(ignored) == set(tensors) - read[-1]
        assert set(ignored.values()) == {"another pipeline stage has it"}
    assert read[0] | read[1] | read[2] == set(tensors)
    assert sum(map(len, read)) == len(tensors)
    unknown = {"layers.3.down.weight": info("layers.3.down.weight", (32, 24))}
    with pytest.raises(WeightsError, match=r"layers\.3\.mlp\.down\.weight"):
        plan_copies(model, tensors | unknown)


def test_a_stage_refuses_to_tap_what_another_has():
    model = TinyLM(Config(layers=3, windows=(None,) * 3))
    model.bind(plan(1, 2, "pp"))
    model.layers.tap([2, 3])
    with pytest.raises(ValueError, match=r"before layers \[0\]: this pipeline stage has layers 2 to 2"):
        model.layers.tap([0, 2])


def test_a_second_model_is_whole_on_its_stage():
    first = plan(1, 2, "pp")
    assert SecondPlan(first, "draft", None, Table([])).group("pp").size == 1
    both = EnginePlan(HandChooser(), torch.float32, torch.device("meta"), Device("cpu"), {"tp": DryGroup(0, 2)}, 64, 64)
    assert SecondPlan(both, "draft", None, Table([])).group("tp").size == 2
