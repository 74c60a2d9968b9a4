"""The measurements of R9, R10, R12 and R21: in a small form, and that they find what they are for."""

from __future__ import annotations

import asyncio
import threading
from argparse import Namespace

import pytest
from vllm_plugin_server import work
from vllm_plugin_server.bench.ask import Outcome
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.testing import faults
from vllm_plugin_server.testing.fault_stage import Kind
from vllm_plugin_server.testing.faults import run_faults
from vllm_plugin_server.testing.greedy import QUESTIONS, Greedy
from vllm_plugin_server.testing.kills import KillsReport
from vllm_plugin_server.testing.partial import PartialReport
from vllm_plugin_server.testing.soak import SoakReport
from vllm_plugin_server.work import Work


async def nothing(stage):
    """A fault that is none."""


async def stays_stopped(stage):
    stage.server.kill_engine()


def test_health_turns_red_over_faults_and_a_fault_that_is_not_noticed_fails_the_gate(monkeypatch):
    unnoticed = Kind("unnoticed", True, "nothing is wrong", nothing, load=1)
    false_alarm = Kind("false-alarm", False, "the engine is killed", stays_stopped, load=1)
    monkeypatch.setattr(faults, "KINDS", [*faults.KINDS, unnoticed, false_alarm])
    monkeypatch.setattr(faults, "LIMIT", 5.0)  # a machine that runs other tests meanwhile
    monkeypatch.setattr(faults, "CALM", 1.5)
    names = ["step-deadlocks", "short-stop", "unnoticed", "false-alarm"]
    well, report = asyncio.run(run_faults(Namespace(kind=names, model=None)))

    assert not well
    assert report["not_well"] == ["unnoticed", "false-alarm"]
    assert report["faults"]["step-deadlocks"]["status"] == 503


def test_an_unknown_kind_of_fault_is_refused_by_name():
    with pytest.raises(ValueError, match="no such kind: steps-spin; there are engine-killed"):
        asyncio.run(run_faults(Namespace(kind=["steps-spin"], model=None)))


def good(**changes):
    report = KillsReport(3.0, changes.pop("carry_over", False), seen=[0.3], ended=[0.4], ready=[2.5], in_flight=100,
                         clean=100)  # fmt: skip
    for name, value in changes.items():
        setattr(report, name, value)
    return report


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({}, True),
        ({"seen": [0.3, 1.1]}, False),
        ({"ended": [2.1]}, False),
        ({"ready": [4.1]}, False),
        ({"findings": ["a hang"]}, False),
        ({"carry_over": True, "finished": 98}, False),
        ({"carry_over": True, "finished": 99, "ended": [5.0]}, True),
    ],
)
def test_kills_pass_only_with_every_figure_within_its_bound(changes, well):
    assert good(**changes).well is well


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({}, True),
        ({"paused": [0.4, 3.5]}, False),
        ({"asked": [3.5]}, False),
        ({"asked": []}, False),
        ({"back": [61.0]}, False),
        ({"whole": 9}, False),
        ({"findings": ["a new request: 503"]}, False),
    ],
)
def test_a_partial_failure_passes_only_if_nobody_noticed_more_than_a_pause(changes, well):
    known = {"paused": [0.4], "asked": [0.1], "back": [2.5], "in_flight": 10, "whole": 10}
    assert PartialReport(**known | changes).well is well


def test_a_soak_excuses_refusals_without_an_engine_and_nothing_else():
    greedy = Greedy("http://127.0.0.1:1", "m", 4)
    greedy.known = [{"abcd"}] * QUESTIONS
    report = SoakReport(down=[(10.0, 12.0)])
    for outcome in (
        Outcome(1, success=True, text="abcd", start_time=1.0),
        Outcome(1, error="HTTP 503: no engine", start_time=11.0),  # excused
        Outcome(1, error="HTTP 503: no engine", start_time=15.0),
        Outcome(1, error="the connection was lost", start_time=11.0),
        Outcome(1, error="in the stream: engine_dead", text="ab", start_time=9.0, latency=2.0),
        None,
        Outcome(1, success=True, text="abce", start_time=1.0),  # a wrong answer
    ):
        report.take(greedy, 0, outcome)
    assert (report.good, report.failed, report.excused, report.wrong) == (6, 4, 1, 1)
    assert report.availability == pytest.approx(1 / 3)


def test_threads_that_never_come_back_are_told_once_all_of_them_are_lost(monkeypatch):
    monkeypatch.setattr(work, "GRACE", 0.05)
    over = threading.Event()

    async def ask():
        them = Work(2, 0.1)
        found = []
        for _ in range(2):
            with pytest.raises(ApiError):
                await them(over.wait, 30, size=10**6)
            await asyncio.sleep(0.1)
            found.append(them.stuck)
        over.set()
        await asyncio.sleep(0.3)
        found.append(them.stuck)
        them.close()
        return found

    assert asyncio.run(ask()) == [False, True, False]
