"""What is launched around the model fits the sources, on shapes of any size; without a GPU."""

from __future__ import annotations

import re

import pytest
import torch
from vllm_kernels import edits, logprobs, sampling, steps
from vllm_kernels.arguments import Arguments
from vllm_kernels.compiler import SOURCES

from vllm_core.interfaces.sampler import SamplingTensors


def parameters(file: str, name: str) -> str:
    """The letters of a kernel's signature, read off its source."""
    found = re.search(rf"__global__[^;{{]*?\b{name}\(([^)]*)\)\s*\{{", (SOURCES / file).read_text())
    types = [re.sub(r"\w+$", "", part.strip()) for part in found[1].split(",")]
    return "".join("P" if "*" in of else {"int": "i", "i64": "l"}[of.strip()] for of in types)


class Launched:
    """Instead of `kernel.Kernel`: checks arguments by their letters, and remembers grids by the kernel's name."""

    grids: dict[str, tuple[int, ...]] = {}

    def __init__(self, file, name, signature, defines=None, *, shared=0, dependent=False):
        assert signature == parameters(file, name), f"{name} in {file} takes {parameters(file, name)}, not {signature}"
        assert dependent
        self.name, self.arguments, self.letters, self.most_shared = name, Arguments(signature), signature, shared

    def __call__(self, grid, block, *args, shared=0):
        for letter, value in zip(self.letters, args, strict=True):
            assert (value is None or isinstance(value, torch.Tensor)) == (letter == "P"), (self.name, letter, value)
        self.arguments.pack(args)
        assert shared <= self.most_shared
        assert block <= 1024
        self.grids[self.name] = (grid,) if isinstance(grid, int) else grid


@pytest.fixture
def grids(monkeypatch):
    for module in (steps, sampling, edits, logprobs):
        monkeypatch.setattr(module, "Kernel", Launched)
    for module in (sampling, logprobs):
        monkeypatch.setattr(module, "counters", lambda: (torch.zeros(sampling.MOST_LINES, dtype=torch.int32), 264))
    monkeypatch.setattr(Launched, "grids", {})
    return Launched.grids


def asked(lines: int, **facts) -> SamplingTensors:
    one, zero = torch.ones(lines), torch.zeros(lines, dtype=torch.int64)
    known = {"any_greedy": True, "any_random": True, "largest_top_k": 0, "any_top_p": False, "any_min_p": False} | facts
    return SamplingTensors(temperature=one, top_k=zero, top_p=one, min_p=one, noise=one.double(), **known)


@pytest.mark.parametrize(("lines", "vocab"), [(1, 151936), (256, 151936), (3, 40), (1000, 5003)])
def test_a_line_has_blocks_while_there_are_multiprocessors(grids, lines, vocab):
    tokens = sampling.Sampler(None)(torch.randn(lines, vocab), asked(lines))
    assert (tokens.shape, tokens.dtype) == ((lines,), torch.int64)
    blocks, of_lines = grids["sample"]
    assert of_lines == lines
    assert 1 <= blocks <= -(-vocab // (sampling.TILE * sampling.WARPS))
    assert blocks == 1 or blocks * lines <= 264


@pytest.mark.parametrize("facts", [{"largest_top_k": 5}, {"any_top_p": True}, {"any_min_p": True}])
def test_cut_lines_cost_a_launch_only_where_the_host_knows_of_any(grids, facts):
    draw, logits = sampling.Sampler(None), torch.randn(2, 5000)
    draw(logits, asked(2))
    draw(logits, asked(2, **facts, any_random=False))
    sampling.argmax(None)(logits)
    assert set(grids) == {"sample"}
    draw(logits, asked(2, **facts))
    assert set(grids) == {"sample", "sample_truncated"}
    assert draw.probs(logits, asked(2, **facts)).shape == logits.shape
    assert "probabilities" in grids


def test_more_logits_than_the_kernels_count_are_refused(grids):
    with pytest.raises(ValueError, match=r"more than the 16,384 lines of 2,097,152"):
        sampling.Sampler(None)(torch.empty(1, 1).expand(1 << 15, 1), asked(1))


def test_scores_of_any_number_of_lines(grids):
    logprob, rank, total = logprobs.Score(None)(torch.randn(3, 7), torch.tensor([1, 2, 3]))
    assert [t.dtype for t in (logprob, rank, total)] == [torch.float32, torch.int32, torch.float32]
    many = sampling.MOST_LINES + 5
    logprobs.Score(None)(torch.empty(1, 7).expand(many, 7), torch.zeros(many, dtype=torch.int64))
    assert grids["token_logprobs"] == (1, 5)  # the rest, in a launch of its own


def test_steps_and_penalties(grids):
    ids, line = torch.zeros(9, 50, dtype=torch.int32), torch.arange(4)
    known = torch.zeros(9, dtype=torch.int32)
    _, positions, sequence, kv_lens = steps.step_inputs(None)(ids, known, line, torch.arange(5) * 100, 400)
    assert (positions.shape, kv_lens.shape, kv_lens.dtype) == ((400,), (4,), torch.int32)
    assert grids["step_inputs"] == (2,)
    table, slots = steps.page_slots(None)(ids, line, sequence, positions, 16, 40)
    assert (table.shape, slots.shape, grids["page_slots"]) == ((4, 40), (400,), (2 + 4,))
    rate = torch.ones(9)
    drawn = steps.sampling_rows(None)(rate, line, rate, rate, line, line, line, 1)
    assert [t.dtype for t in drawn] == [torch.float32, torch.int64, torch.float32, torch.float32, torch.float64]
    for emits in (None, torch.ones(4, dtype=torch.bool), line):
        steps.commit_tokens(None)(ids, known, known, line, line, line, line[:, None], line, ids[:4, :2], emits)
    edits.penalize(None)(torch.randn(4, 40_000), line, line, line, ids[:, :30], line, rate, rate, rate)
    assert grids["penalize"] == (3, 4)
