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


@pytest.mark.gpu
def test_it_prints_and_keeps_what_was_asked_for(gpu, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ceilings", lambda: Ceilings(4000, 700))
    assert bench.main(["--only", "rms_norm T=1 N=1024", "--json", str(tmp_path / "f.json")]) == 0
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert {row["kernel"] for row in rows} == {"rms_norm", "add_rms_norm"}
    assert all(0 < row["us"] < 1000 for row in rows)
    assert capsys.readouterr().out.count("T=1 N=1024") == 2
