"""From files straight into a device's memory, in pieces: here into the CPU's, by the same threads and buffers."""

from __future__ import annotations

import functools

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.weights import load as loading
from vllm_core.weights import rule, stream
from vllm_core.weights.errors import CheckpointError
from vllm_core.weights.load import load_weights
from vllm_core.weights.pieces import pieces
from vllm_core.weights.safetensors import SafetensorsSource
from vllm_core.weights.transforms import Stacked, Transposed, run_of

CHUNK = 96  # bytes: several pieces of most tensors


@pytest.fixture
def straight(monkeypatch):
    """Pieces on the CPU; what went that way is listed."""
    gone = []

    def cut(copy, source):
        found = pieces(copy, source, chunk=CHUNK, kinds=("cpu",))
        gone.extend(found or ())
        return found

    monkeypatch.setattr(loading, "pieces", cut)
    return gone


class Model(nn.Module):
    weights = [
        rule("experts.{w}", "experts.{w}", transform=Stacked()),
        rule("swapped.{w}", "swapped.{w}", transform=Transposed()),
        rule("{x:rows|columns|corner|scalar|rounded}.{w}", "{x}.{w}"),
        rule("{x:left|right}.{w}", "sides.{w}", slot="{x}"),
    ]

    def __init__(self, leaf):
        super().__init__()
        self.rows = leaf(weight={"": SlotRange((40, 6), ((10, 31), (0, 6)))})
        self.columns = leaf(weight={"": SlotRange((40, 6), ((0, 40), (2, 5)))})
        self.corner = leaf(weight={"": SlotRange((5, 9, 7), ((1, 4), (3, 9), (1, 6)))})
        self.rounded = leaf(weight={"": SlotRange((33, 7))}).to(torch.bfloat16)
        self.scalar = leaf(weight={"": SlotRange((1,))})
        self.swapped = leaf(weight={"": SlotRange((8, 12))})
        self.experts = leaf(
            weight={"3": SlotRange((4, 5), (), ((0, 4), (0, 5))), "1": SlotRange((4, 5), (), ((4, 8), (0, 5)))}
        )
        self.sides = leaf(
            weight={"left": SlotRange((9, 4), (), ((0, 9), (0, 4))), "right": SlotRange((9, 3), (), ((0, 9), (4, 7)))}
        )


def checkpoint():
    torch.manual_seed(1)
    shapes = {
        "rows": (40, 6), "columns": (40, 6), "corner": (5, 9, 7), "rounded": (33, 7), "scalar": (1,),
        "swapped": (12, 8), "experts": (6, 4, 5), "left": (9, 4), "right": (9, 3),
    }  # fmt: skip
    return {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}


def check(model, t):
    assert torch.equal(model.rows.weight, t["rows.weight"][10:31])
    assert torch.equal(model.columns.weight, t["columns.weight"][:, 2:5])
    assert torch.equal(model.corner.weight, t["corner.weight"][1:4, 3:9, 1:6])
    assert torch.equal(model.rounded.weight, t["rounded.weight"].bfloat16())
    assert torch.equal(model.scalar.weight, t["scalar.weight"])
    assert torch.equal(model.swapped.weight, t["swapped.weight"].T)
    assert torch.equal(model.experts.weight, torch.cat([t["experts.weight"][3], t["experts.weight"][1]]))
    assert torch.equal(model.sides.weight, torch.cat([t["left.weight"], t["right.weight"]], 1))


def test_every_number_arrives_whatever_is_cut_converted_or_scattered(straight, leaf, tmp_path):
    tensors = checkpoint()
    save_file(tensors, tmp_path / "model.safetensors")
    model, said = Model(leaf), []

    report = load_weights(model, SafetensorsSource(tmp_path), progress=lambda *news: said.append(news))

    check(model, tensors)
    names = {piece.copy.name for piece in straight}
    assert names == {name for name in tensors if name != "swapped.weight"}  # that one is rearranged by torch
    assert len(straight) > 30
    assert all(piece.nbytes <= CHUNK for piece in straight)
    assert sum(p.nbytes for p in straight) + tensors["swapped.weight"].nbytes == report.bytes
    done, totals, _ = zip(*said, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == report.bytes == totals[0]


def test_only_a_ranks_part_is_read_and_files_are_read_in_order(straight, leaf, tmp_path, monkeypatch):
    tensors = checkpoint()
    for name, tensor in tensors.items():
        save_file({name: tensor}, tmp_path / f"{name[:4]}.safetensors")
    monkeypatch.setattr(stream, "THREADS", 1)
    read, begun = stream._File.read, []
    monkeypatch.setattr(stream._File, "read", lambda file, piece, into: begun.append(piece) or read(file, piece, into))
    model = Model(leaf)

    load_weights(model, SafetensorsSource(tmp_path))

    check(model, tensors)
    assert [(p.path, p.start) for p in begun] == sorted((p.path, p.start) for p in begun)
    rows = [p for p in straight if p.copy.name == "rows.weight"]
    assert sum(p.nbytes for p in rows) == 21 * 6 * 4


def test_the_second_reading_fills_the_same_addresses(straight, leaf, tmp_path):
    tensors = checkpoint()
    save_file(tensors, tmp_path / "model.safetensors")
    model = Model(leaf)
    load_weights(model, SafetensorsSource(tmp_path))
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    other = {name: t + 1 for name, t in tensors.items()}
    save_file(other, tmp_path / "model.safetensors")

    load_weights(model, SafetensorsSource(tmp_path))

    check(model, other)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before


def test_a_file_that_became_shorter_is_an_error_with_tensor_file_and_place(straight, leaf, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({name: t for name, t in checkpoint().items() if name != "swapped.weight"}, file)
    model = Model(leaf)
    del model.swapped
    source = SafetensorsSource(tmp_path)
    with file.open("r+b") as f:
        f.truncate(file.stat().st_size - 500)

    with pytest.raises(
        CheckpointError, match=r"\.weight cannot be read: the file ends after (?s:.*)where   .*model\.safetensors"
    ):
        load_weights(model, source)


def test_the_first_error_ends_the_reading(straight, leaf, tmp_path, monkeypatch):
    save_file(checkpoint(), tmp_path / "model.safetensors")
    begun = []

    def fail(file, piece, into):
        begun.append(piece)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stream._File, "read", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        load_weights(Model(leaf), SafetensorsSource(tmp_path))
    assert 1 <= len(begun) <= stream.THREADS


def test_a_cpu_reads_the_files_own_pages(leaf, tmp_path, monkeypatch):
    save_file(checkpoint(), tmp_path / "model.safetensors")
    monkeypatch.setattr(stream.Lanes, "fill", lambda *_: pytest.fail("a buffer in between"))
    load_weights(Model(leaf), SafetensorsSource(tmp_path))


@pytest.mark.parametrize(
    ("slices", "start"),
    [
        (((0, 4), (0, 5), (0, 6)), 0),
        (((1, 3), (0, 5), (0, 6)), 30),
        (((2, 3), (1, 4), (0, 6)), 66),
        (((2, 3), (1, 2), (3, 5)), 69),
        (((1, 3), (1, 4), (0, 6)), None),
        (((0, 4), (0, 5), (0, 5)), None),
        ((), 0),
    ],
)
def test_a_run_is_told_from_a_rectangle(slices, start):
    numbers = torch.arange(120).view(4, 5, 6)
    assert run_of(slices, (4, 5, 6)) == start
    part = numbers[tuple(slice(a, b) for a, b in slices)].reshape(-1)
    assert (start is not None) == torch.equal(part, torch.arange(part[0], part[0] + len(part)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_the_same_numbers(leaf, tmp_path, monkeypatch):
    tensors = checkpoint()
    save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.setattr(loading, "pieces", functools.partial(pieces, chunk=CHUNK))
    model = Model(leaf).cuda()

    load_weights(model, SafetensorsSource(tmp_path))

    check(model.cpu(), tensors)
