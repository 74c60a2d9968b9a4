"""The benchmark runs, and prints a line for each size; how fast is not asked here."""

from __future__ import annotations

import re

import pytest
from vllm_plugin_cpu_native import bench
from vllm_plugin_cpu_native.limits import machine_limits


@pytest.mark.skipif(bool(machine_limits("float32")), reason=machine_limits("float32"))
def test_each_size_has_a_line(monkeypatch, capsys):
    monkeypatch.setattr(bench, "SIZES", [(33, 17), (8, 40)])
    monkeypatch.setattr(bench, "TOKENS", [1, 5])
    monkeypatch.setattr(bench, "MEMORY", 1 << 12)
    bench.products("float32")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r"float32 +\d x \d+ -> +\d+: +\d+ us +\d+ GFLOP/s +\d+ GB/s", line) for line in lines)
    bench.sampling()
    assert len(capsys.readouterr().out.splitlines()) == 3
