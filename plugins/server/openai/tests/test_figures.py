"""The commands that measure the server, in short: what they call passed holds on SmolLM2 here, too."""

from __future__ import annotations

import pytest
from vllm_plugin_server.bench.ask import Outcome
from vllm_plugin_server.testing import figures


def test_a_gap_counts_when_it_ends():
    outcome = Outcome(1, start_time=10.0, ttft=1.0, itl=[0.5, 0.25])
    assert figures._gaps(outcome) == [(0.5, 11.5), (0.25, 11.75)]


@pytest.fixture
def passed(capsys):
    """Runs a figure and returns its line."""

    def run(*words: str) -> str:
        code = figures.main(words)
        line = capsys.readouterr().out
        assert code == 0, line
        return line

    return run


@pytest.mark.slow
def test_a_killed_engine_is_known_within_a_second_and_comes_back(passed):
    line = passed("death", "--streams", "2")
    assert "2 with an error" in line
    assert "next request answered" in line


@pytest.mark.slow
def test_an_idle_server_takes_no_processor_time(passed):
    assert "of a core" in passed("idle", "--seconds", "5")
