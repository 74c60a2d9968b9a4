"""Tensors stored otherwise than used: whatever is read by the slice equals the slice of the whole."""

from __future__ import annotations

import itertools

import pytest
import torch

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.weights.transforms import Interleaved, Plain, RotaryPairs, Split, Stacked, Transposed, full


def gather(transform, stored, slots, slot=""):
    """What the loader would put into each slot, and how many elements it read."""
    found, count = {}, 0
    for part in transform.parts(tuple(stored.shape), slot, slots):
        data = stored[tuple(slice(a, b) for a, b in part.read)]
        count += data.numel()
        found[part.slot] = part.arrange(data) if part.arrange else data
        assert part.shape == slots[part.slot].shape
    return found, count


def cut(whole, range_):
    return whole[tuple(slice(a, b) for a, b in full(range_.source, whole.shape))]


def ranges(shape):
    """The whole, a share of the rows, a share of the columns, and a range on nobody's border."""
    rows, columns = shape[0], shape[-1]
    yield ()
    yield ((rows // 2, rows), *((0, n) for n in shape[1:]))
    if len(shape) > 1:
        yield (*((0, n) for n in shape[:-1]), (columns // 2, columns))
    yield ((1, rows - 1), *((0, n) for n in shape[1:]))


def test_a_plain_tensor_is_read_at_the_ranks_slice():
    stored = torch.arange(24).view(6, 4)
    slots = {"": SlotRange((6, 4), ((2, 4), (0, 4)))}

    found, count = gather(Plain(), stored, slots)

    assert torch.equal(found[""], stored[2:4])
    assert count == 8


@pytest.mark.parametrize("shape", [(6, 4), (6,), (3, 6, 4)])
def test_a_transposed_tensor_is_read_at_the_swapped_slice(shape):
    whole = torch.randn(shape)
    stored = whole.transpose(-1, -2).contiguous() if len(shape) > 1 else whole
    for source in ranges(shape):
        slots = {"": SlotRange(shape, source)}
        found, count = gather(Transposed(), stored, slots)
        assert torch.equal(found[""], cut(whole, slots[""]))
        assert count == cut(whole, slots[""]).numel()


@pytest.mark.parametrize("dim", [0, 1])
def test_a_fused_tensor_is_split_into_slots_of_different_sizes(dim):
    shapes = {"q": (8, 6), "k": (4, 6), "v": (4, 6)} if dim == 0 else {"q": (6, 8), "k": (6, 4), "v": (6, 4)}
    whole = {name: torch.randn(shape) for name, shape in shapes.items()}
    stored = torch.cat(list(whole.values()), dim)
    for choice in range(4):
        slots = {name: SlotRange(shape, list(ranges(shape))[choice]) for name, shape in shapes.items()}
        found, count = gather(Split(("q", "k", "v"), dim), stored, slots)
        assert all(torch.equal(found[n], cut(whole[n], slots[n])) for n in shapes)
        assert count == sum(t.numel() for t in found.values())


@pytest.mark.parametrize(("group", "dim"), [(1, 0), (2, 0), (1, 1)])
def test_interleaved_slots_are_picked_apart(group, dim):
    whole = {n: torch.randn(8, 6) for n in ("gate", "up")}
    stacked = torch.stack([t.unflatten(dim, (-1, group)) for t in whole.values()], dim + 1)
    stored = stacked.flatten(dim, dim + 2)
    for source in ranges((8, 6)):
        slots = {n: SlotRange((8, 6), source) for n in whole}
        found, _ = gather(Interleaved(("gate", "up"), group, dim), stored, slots)
        assert all(torch.equal(found[n], cut(whole[n], slots[n])) for n in whole)


def test_gpt_neox_heads_are_picked_apart():
    heads, d, hidden = 4, 3, 5
    whole = {n: torch.randn(heads * d, hidden) for n in "qkv"}
    stored = torch.stack([whole[n].view(heads, d, hidden) for n in "qkv"], 1).reshape(3 * heads * d, hidden)
    slots = {n: SlotRange((heads * d, hidden), ((d, 3 * d), (0, hidden))) for n in "qkv"}

    found, count = gather(Interleaved(("q", "k", "v"), group=d), stored, slots)

    assert all(torch.equal(found[n], whole[n][d : 3 * d]) for n in "qkv")
    assert count == 3 * stored.numel() // 2  # the turns that hold the range, once a slot


@pytest.mark.parametrize("shape", [(12, 5), (12,)])
def test_rotary_pairs_become_halves(shape):
    heads, d = 3, 4
    whole = torch.randn(shape)
    order = [h * d + n + half * d // 2 for h, n, half in itertools.product(range(heads), range(d // 2), range(2))]
    stored = whole[order]
    for source in ranges(shape):
        slots = {"": SlotRange(shape, source)}
        found, _ = gather(RotaryPairs(d), stored, slots)
        assert torch.equal(found[""], cut(whole, slots[""]))


def test_stacked_experts_go_to_the_slots_that_this_rank_has():
    experts, out, inner = 4, 6, 5
    gate, up = torch.randn(experts, out, inner), torch.randn(experts, out, inner)
    stored = torch.cat([gate, up], 1).transpose(1, 2).contiguous()  # [expert, in, gate and up]
    half = ((3, 6), (0, inner))
    slots = {f"{e}.{n}": SlotRange((out, inner), half) for e in (2, 3) for n in ("gate", "up")}

    found, count = gather(Stacked(Transposed(Split(("gate", "up")))), stored, slots)

    assert set(found) == set(slots)
    for e in (2, 3):
        assert torch.equal(found[f"{e}.gate"], gate[e, 3:])
        assert torch.equal(found[f"{e}.up"], up[e, 3:])
    assert count == stored.numel() // 4


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (Split(("q", "k")), (9, 2), r"dimension 0 should be q 4 \+ k 4 = 8"),
        (Split(("q", "z")), (8, 2), "the parameter has no z"),
        (Interleaved(("q", "k"), group=4), (12, 2), "multiple of 2 x 4 = 8"),
        (RotaryPairs(4), (6, 2), "multiple of the head size 4"),
        (Stacked(), (1, 4, 2), "wants number 1"),
    ],
)
def test_a_shape_that_cannot_be_right_is_refused(transform, shape, message):
    names = ("0", "1") if isinstance(transform, Stacked) else ("q", "k")
    slots = {n: SlotRange((4, 2)) for n in names}
    with pytest.raises(ValueError, match=message):
        transform.parts(shape, "", slots)
