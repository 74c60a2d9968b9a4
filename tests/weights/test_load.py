"""Filling a bound model: every parameter once, in place, or one error that names all that does not fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.weights import rule
from vllm_core.weights.errors import WeightsError
from vllm_core.weights.load import load_weights
from vllm_core.weights.transforms import Split, Transposed


def test_every_slot_gets_its_tensor(tiny, memory, tensors):
    model = tiny()

    report = load_weights(model, memory(tensors))

    for i, layer in enumerate(model.layers):
        gate_up = layer["gate_up"].weight
        assert torch.equal(gate_up[:6], tensors[f"model.layers.{i}.gate_proj.weight"])
        assert torch.equal(gate_up[6:], tensors[f"model.layers.{i}.up_proj.weight"])
        assert torch.equal(layer["norm"].weight, tensors[f"model.layers.{i}.norm.weight"])
    assert torch.equal(model.embed.weight, tensors["model.embed.weight"])
    assert report.ignored == {"model.layers.0.inv_freq": "computed, not loaded"}
    assert report.tensors == 7
    assert report.bytes == sum(t.nbytes for k, t in tensors.items() if "inv_freq" not in k)


def test_a_tensor_that_its_layer_leaves_unread_is_ignored_with_the_layers_reason(tiny, memory, tensors):
    model = tiny()
    model.head = nn.Module()
    model.head.unread = {"weight": "the head is the embedding"}
    model.weights = [*model.weights, rule("lm_head.{w}", "head.{w}")]

    report = load_weights(model, memory(tensors | {"lm_head.weight": torch.zeros(10, 4)}))

    assert report.ignored["lm_head.weight"] == "the head is the embedding"
    with pytest.raises(WeightsError, match=r"lm_head\.bias -> head\.bias"):
        load_weights(model, memory(tensors | {"lm_head.bias": torch.zeros(10)}))


def test_a_second_load_refills_the_same_addresses(tiny, memory, tensors):
    model = tiny()
    load_weights(model, memory(tensors))
    before = {k: p.data_ptr() for k, p in model.named_parameters()}

    load_weights(model, memory({k: t + 1 for k, t in tensors.items()}))

    assert {k: p.data_ptr() for k, p in model.named_parameters()} == before
    assert torch.equal(model.embed.weight, tensors["model.embed.weight"] + 1)
    assert model.embed.calls == 2  # loaded() after each


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_reads_only_its_rows(tiny, memory, tensors, rank):
    model, source = tiny(rank, 2), memory(tensors)

    report = load_weights(model, source)

    mine = slice(3 * rank, 3 * rank + 3)
    assert torch.equal(model.layers[1]["gate_up"].weight[3:], tensors["model.layers.1.up_proj.weight"][mine])
    assert ("model.layers.1.up_proj.weight", ((3 * rank, 3 * rank + 3), (0, 4))) in source.reads
    whole = sum(t.nbytes for k, t in tensors.items() if "norm" in k or "embed" in k)
    assert report.bytes == whole + 4 * 3 * 4 * 4  # four matrices, half of 6 rows of 4 floats


def test_numbers_are_converted_to_the_parameters_dtype(tiny, memory, tensors):
    model = tiny()
    model.embed.to(torch.float64)

    load_weights(model, memory({k: t.bfloat16() for k, t in tensors.items()}))

    assert torch.equal(model.embed.weight, tensors["model.embed.weight"].bfloat16().double())


def test_one_error_lists_all_that_does_not_fit_and_nothing_is_read(tiny, memory, tensors):
    tensors["model.layers.0.gate_prj.weight"] = tensors.pop("model.layers.0.gate_proj.weight")  # a typing error
    tensors["model.layers.1.norm.weight"] = torch.ones(5)
    tensors["model.layers.7.norm.weight"] = torch.ones(4)
    model, source = tiny(), memory(tensors)

    with pytest.raises(WeightsError) as e:
        load_weights(model, source)

    text = str(e.value)
    assert "1 tensors of the checkpoint that no rule covers" in text
    assert "model.layers.0.gate_prj.weight; nearest: model.layers.0.gate_proj.weight" in text
    missing = (
        "layers.0.gate_up.weight slot 'gate' <- model.layers.0.gate_proj.weight; nearest: model.layers.0.gate_prj.w"
    )
    assert missing in text
    assert "model.layers.1.norm.weight is [5]: layers.1.norm.weight takes [4]" in text
    assert "model.layers.7.norm.weight -> layers.7.norm.weight; nearest: layers." in text
    assert source.reads == []
    assert model.embed.weight.isnan().all()


def test_a_place_that_two_tensors_fill_is_an_error(tiny, memory, tensors):
    model = tiny()
    model.weights = [*model.weights, rule("other.{w}", "embed.{w}")]
    tensors["other.weight"] = tensors["model.embed.weight"]

    with pytest.raises(WeightsError, match=r"embed\.weight: model\.embed\.weight and other\.weight"):
        load_weights(model, memory(tensors))


def test_a_slot_that_the_parameter_lacks_is_an_error(tiny, memory, tensors):
    model = tiny()
    model.weights = [*model.weights, rule("model.layers.{i}.{x:down}_proj.{w}", "layers.{i}.gate_up.{w}", slot="{x}")]
    tensors["model.layers.0.down_proj.weight"] = torch.ones(6, 4)

    with pytest.raises(WeightsError, match=r"slot 'down' of layers\.0\.gate_up\.weight, which has 'gate', 'up'"):
        load_weights(model, memory(tensors))


def test_a_long_list_of_errors_is_cut(tiny, memory, tensors):
    tensors |= {f"stray.{i}": torch.ones(1) for i in range(1000)}

    with pytest.raises(WeightsError, match=r"1,000 tensors(.|\n)*and 988 more") as e:
        load_weights(tiny(), memory(tensors))
    assert len(str(e.value).splitlines()) < 30


def test_progress_ends_at_the_total(tiny, memory, tensors):
    told = []

    report = load_weights(tiny(), memory(tensors), progress=lambda done, total, name: told.append((done, total, name)))

    assert [d for d, _, _ in told] == sorted(d for d, _, _ in told)
    assert told[-1][:2] == (report.bytes, report.bytes)
    assert {n for _, _, n in told} == {k for k in tensors if "inv_freq" not in k}


def test_a_layer_shared_by_two_paths_is_filled_once(memory, leaf):
    class Shared(nn.Module):
        weights = [rule("a.{w}", "second.{w}")]

    model = Shared()
    model.first = leaf(weight={"": SlotRange((3,))})
    model.second = model.first

    load_weights(model, memory({"a.weight": torch.arange(3.0)}))

    assert model.first.weight.tolist() == [0, 1, 2]


def test_a_source_that_unpacks_fills_contiguous_places_itself(tiny, memory, tensors):
    class Unpacking(memory):
        into = ()

        def read_into(self, name, slices, out):
            self.into += (name,)
            out.copy_(self.read(name, slices))

    plain, model, source = tiny(), tiny(), Unpacking(tensors)

    load_weights(plain, memory(tensors))
    load_weights(model, source)

    assert sorted(source.into) == sorted(k for k in tensors if "inv_freq" not in k)
    ours, theirs = dict(model.named_parameters()), dict(plain.named_parameters())
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_torchs_threads_are_as_many_after_loading_as_before(tiny, memory, tensors):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load_weights(tiny(), memory(tensors))
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_a_failure_while_reading_reaches_the_caller(tiny, memory, tensors):
    class Failing(memory):
        def read(self, name, slices=()):
            raise OSError(f"disk gone at {name}")

    with pytest.raises(OSError, match="disk gone"):
        load_weights(tiny(), Failing(tensors))


def test_a_transformed_tensor_is_arranged_before_it_is_stored(memory, leaf):
    stored = torch.randn(4, 9)

    class Fused(nn.Module):
        weights = [rule("c_attn.{w}", "qkv.{w}", transform=Transposed(Split(("q", "k", "v"))))]

    model = Fused()
    model.qkv = leaf(
        weight={n: SlotRange((3, 4), (), ((3 * i, 3 * i + 3), (0, 4))) for i, n in enumerate(("v", "q", "k"))}
    )
    load_weights(model, memory({"c_attn.weight": stored}))

    q, k, v = stored.T.split(3)
    assert torch.equal(model.qkv.weight, torch.cat([v, q, k]))
