"""Figures that kits take beside their tests: of what, and which way they go."""

from __future__ import annotations

from vllm_core.testing import AttentionConformance, attention_speed
from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_trial import Trial

from .test_proposer_kit import DraftKit, Kit


class Plain(AttentionConformance):
    backend = "reference"
    device = "cpu"


def test_a_backend_that_attends_eight_times_is_told_to_be_slower(monkeypatch):
    slow = AskedBackend("reference", "cpu")

    class Slowed(Trial):
        def __init__(self, asked, query, **more):
            super().__init__(asked, query, **more)
            attend = self.backend.attend
            if asked is slow:
                self.backend.attend = lambda *given: [attend(*given) for _ in range(8)]

    monkeypatch.setattr(attention_speed, "Trial", Slowed)
    found = list(attention_speed.speeds(slow, Plain.plain()))
    assert [one.what.partition(";")[0] for one in found] == list(attention_speed.BATCHES)
    assert all(0 < one.value < 0.6 for one in found), found
    assert {one.unit for one in found} == {"times as fast as the core's plain backend"}


def test_the_plain_backend_is_not_measured_against_itself():
    assert list(Plain.measure()) == []


def test_a_proposers_share_is_told_where_its_author_knows_of_one():
    assert list(Kit.measure()) == []  # it says of no share what it should be

    class Once(DraftKit):
        drafts = (2,)

    (one,) = Once.measure()
    assert one.what == "a tiny random model, greedy, 2 guesses a step"
    assert 0.9 < one.value <= 1
