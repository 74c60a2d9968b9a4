"""What a trace of the device is summed up to."""

import pytest

from vllm_core.cli.bench.trace import Span, idle, summary


def test_gaps_are_where_nothing_runs_even_if_kernels_overlap():
    spans = [Span("a", 0, 10), Span("b", 2, 5), Span("a", 12, 20), Span("b", 19, 30), Span("c", 33, 34)]
    assert idle(spans) == [2, 3]


def test_a_summary_names_the_kernels_that_take_longest_first():
    spans = [Span("a", 100, 110), Span("b", 110, 160), Span("a", 190, 200)]
    found = summary(spans)
    assert found["microseconds"] == 100
    assert found["busy_share"] == pytest.approx(0.7)
    assert (found["gaps"], found["longest_gap_us"], found["gaps_over_20_us"]) == (1, 30, 1)
    assert [(k["name"], k["count"], k["microseconds"]) for k in found["kernels"]] == [("b", 1, 50), ("a", 2, 20)]
