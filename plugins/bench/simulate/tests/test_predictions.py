"""Predictions stay as close to what was measured as docs/scaling.md says."""

import tomllib

import pytest
from vllm_plugin_simulate.validate import compare, files, shown

from vllm_core.simulation import ALL

STATED = 0.12
"""The largest error of any point: docs/scaling.md."""

POINTS = tomllib.loads(files("vllm_plugin_simulate").joinpath("measured.toml").read_text("utf-8"))["point"]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["model"])
def test_predictions_are_within_the_stated_error(point):
    rows = compare(point)
    assert len(rows) == len([name for name in ALL if name in point])
    wrong = {one.workload: one.error for one in rows if abs(one.error) > STATED}
    assert not wrong


def test_the_points_are_of_both_kinds_and_of_one_gpu_so_far():
    assert {point["use"] for point in POINTS} == {"seen", "checked"}
    assert all(point.get(size, 1) == 1 for point in POINTS for size in ("tp", "pp", "dp"))


def test_a_point_of_several_gpus_is_compared_on_as_many():
    alone = next(point for point in POINTS if point["model"] == "llama-3.1-8b")
    pair = {**{name: alone[name] for name in alone if name not in ALL}, "w2": alone["w2"], "tp": 2}
    (row,) = compare(pair)
    assert row.split == "2 x 1 x 1"
    assert row.predicted > 1.2 * compare({**pair, "tp": 1})[0].predicted
    assert "w2" in shown([row])


def test_a_faster_memory_would_be_noticed(monkeypatch):
    """The stated error tells a wrong figure of the hardware from the right one."""
    import attrs
    from vllm_plugin_simulate import validate

    right = validate.read_gpu
    monkeypatch.setattr(validate, "read_gpu", lambda name: attrs.evolve(right(name), bandwidth=1.5 * 4.3e12))
    point = next(point for point in POINTS if point["model"] == "llama-3.1-8b")
    rows = compare({name: point[name] for name in point if name not in ("w1", "w3", "w5")})
    assert all(one.error > STATED for one in rows if one.workload in ("w2", "w6"))
