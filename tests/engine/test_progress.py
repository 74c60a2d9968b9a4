"""The line that shows how far the reading of weights is."""

import io

import pytest

from vllm_core.engine import progress
from vllm_core.engine.progress import LoadingLine, loading_line


@pytest.fixture
def clock(monkeypatch):
    """Seconds, moved by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_quick_loading_is_silent(clock):
    out = io.StringIO()
    line = LoadingLine(out)
    for done in range(11):
        clock[0] += progress.PATIENCE / 20
        line(done, 10, "a.weight")
    assert out.getvalue() == ""


def test_slow_loading_shows_bytes_and_share_now_and_then_and_clears_its_line(clock):
    out = io.StringIO()
    line = LoadingLine(out)
    clock[0] += progress.PATIENCE
    line(2_500_000_000, 10_000_000_000, "a.weight")
    line(2_600_000_000, 10_000_000_000, "b.weight")  # at once: not worth a word
    assert out.getvalue() == "\rreading weights: 2.5 of 10.0 GB (25%)"
    line(10_000_000_000, 10_000_000_000, "c.weight")
    assert out.getvalue().split("\r")[-2:] == [" " * 60, ""]


def test_nothing_is_shown_where_nobody_looks(monkeypatch):
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    assert loading_line() is None
