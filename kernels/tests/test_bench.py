"""The table of figures, as far as it needs no GPU."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch
from vllm_kernels.bench import __main__ as bench
from vllm_kernels.bench.case import Case, all_cases
from vllm_kernels.bench.ceilings import Ceilings
from vllm_kernels.offers import OPS


@pytest.fixture
def elsewhere(monkeypatch):
    """The name of another package's module of cases."""
    module = ModuleType("their_cases")
    made = {"kernel": "theirs", "dtype": "float32", "make": lambda: lambda: None}
    module.cases = lambda: [
        Case(**made, shape="few bytes", bytes=10**6, flops=10**10),
        Case(**made, shape="few operations", bytes=10**9, flops=10**6, reference=lambda: lambda: None),
    ]
    monkeypatch.setitem(sys.modules, "their_cases", module)
    return "their_cases"


def test_every_case_has_a_line_of_its_own(elsewhere):
    lines = [str(case) for case in all_cases([elsewhere])]
    assert len(lines) == len(set(lines))
    assert {"rms_norm", "qk_norm_rope_write", "silu_and_mul", "theirs"} <= {line.split()[0] for line in lines}


HALVES = {"decoder_attention": "qk_norm_rope_write", "gated_mlp": "small.norm_gate_up_silu", "linear": "small.head"}


def test_every_op_and_the_sampler_have_figures():
    lines = {case.kernel for case in all_cases()}
    assert {HALVES.get(name, name) for name in OPS} | {"sample", "probabilities"} <= lines


def test_what_stands_before_a_kernel_does_not_count(monkeypatch):
    def add(amount: float):
        return lambda: lambda: spent.append(amount)

    def microseconds(make, size):
        spent.clear()
        make()()
        return sum(spent)

    spent: list[float] = []
    monkeypatch.setattr(bench, "microseconds", microseconds)
    case = Case(kernel="head", shape="", dtype="", make=add(30.0), reference=add(40.0), before=add(500.0), bytes=10**6)
    row = bench.measure(case, Ceilings(gb_per_s=100, tflop_per_s=1))
    assert (row["us"], row["torch_us"]) == (30.0, 40.0)


def test_a_figure_is_a_share_of_the_nearer_ceiling(elsewhere, monkeypatch):
    monkeypatch.setattr(bench, "microseconds", lambda make, size: 100.0)
    few_bytes, few_operations = [c for c in all_cases([elsewhere]) if c.kernel == "theirs"]
    top = Ceilings(gb_per_s=20_000, tflop_per_s=200)
    row = bench.measure(few_bytes, top)
    assert (row["unit"], row["rate"], row["share"], row["torch_us"]) == ("TFLOP/s", 100, 0.5, None)
    row = bench.measure(few_operations, top)
    assert (row["unit"], row["rate"], row["share"], row["torch_us"]) == ("GB/s", 10_000, 0.5, 100)
    assert "10000 GB/s" in bench.line(row)
    assert "50%" in bench.line(row)
    assert "1.0x" in bench.line(row)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(capsys):
    assert bench.main([]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_a_case_that_fails_is_named_and_the_others_are_measured(elsewhere, monkeypatch, capsys, tmp_path):
    def measured(make, size):
        if size == 10**6:
            raise RuntimeError("no such launch")
        return 100.0

    monkeypatch.setattr(bench, "microseconds", measured)
    monkeypatch.setattr(bench, "ceilings", lambda: Ceilings(4000, 700))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    words = ["--only", "few bytes", "few operations", "--cases", elsewhere, "--output-json", str(tmp_path / "f.json")]
    assert bench.main(words) == 1
    assert "theirs few bytes float32: FAILED, RuntimeError: no such launch" in capsys.readouterr().out
    assert [row["shape"] for row in json.loads((tmp_path / "f.json").read_text())["rows"]] == ["few operations"]


@pytest.mark.gpu
def test_it_prints_and_keeps_what_was_asked_for(gpu, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ceilings", lambda: Ceilings(4000, 700))
    assert bench.main(["--only", "rms_norm T=1 N=1024", "--output-json", str(tmp_path / "f.json")]) == 0
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert {row["kernel"] for row in rows} == {"rms_norm", "add_rms_norm"}
    assert all(0 < row["us"] < 1000 for row in rows)
    assert capsys.readouterr().out.count("T=1 N=1024") == 2
