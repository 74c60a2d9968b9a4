"""R17: the time that the door takes to refuse a key tells nothing of the right ones, and the gate would notice."""

import random

import pytest
from vllm_plugin_server.door import Door
from vllm_plugin_server.testing.timing import QUESTIONS, door, measure, stopping, timing, welch

FEW = 10_000  # comparisons; the command makes 100,000
LONG_PREFIX = QUESTIONS[1]


def test_times_of_one_distribution_have_a_p_above_and_of_two_below():
    chance = random.Random(1)
    first, second = ([chance.gauss(100, 10) for _ in range(5000)] for _ in range(2))
    assert welch(first, second) > 0.01
    assert welch(first, [value + 1 for value in second]) < 0.01
    assert welch([1, 1], [1, 1]) == 1.0


def test_p_is_that_of_the_t_test():
    # t = -1, and of a normal distribution 0.3173 lie further out than that.
    assert welch([0, 2] * 100, [x + (2 * 200 / 199 / 200) ** 0.5 for x in [0, 2] * 100]) == pytest.approx(
        0.3173, abs=1e-4
    )


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_the_keys_of_a_question_are_all_wrong_and_as_near_as_it_says(question):
    chance = random.Random(2)
    shared = ([], [])
    for kind in (0, 1) * 200:
        keys, given = question.draw(chance, kind)
        assert given not in keys
        assert not Door([key.decode() for key in keys]).known(given)
        assert len(given) == question.sizes[0][0]
        shared[kind].append(
            max(next(i for i, (a, b) in enumerate(zip(given, [*key, -1], strict=False)) if a != b) for key in keys)
        )
    for kind, near in enumerate(question.near):
        longest = max(shared[kind])
        assert longest == question.sizes[0][0] - 1 if near is not None else longest < 5


def test_the_door_takes_as_long_for_keys_that_are_nearly_right():
    report = timing(door, comparisons=FEW, seed=1)
    assert report.findings == []
    assert all(p[-1] > 0.01 for p in report.p.values())
    assert len(report.p) == len(QUESTIONS)


def test_a_comparison_that_stops_at_the_first_difference_is_found():
    report = timing(stopping, comparisons=FEW, seed=1, questions=[LONG_PREFIX])
    (finding,) = report.findings
    assert "a prefix of a long key is right" in finding
    assert max(report.p[LONG_PREFIX.name]) < 1e-9


def test_a_door_that_reads_the_right_key_first_is_found():
    """Digests are compared well here, but only after a look at the keys themselves."""

    def only_if_it_begins_right(keys):
        known = door(keys)
        return lambda given: any(given.startswith(key[:1024]) and known(given) for key in keys)

    report = timing(only_if_it_begins_right, comparisons=FEW, seed=1, questions=[LONG_PREFIX])
    assert report.findings


def test_a_right_key_is_known_by_its_digest_whichever_it_is():
    keys = ["first-of-several", "second-of-several"]
    assert len({Door(keys).known(key.encode()) for key in keys} - {""}) == 2
    assert Door(keys).known(b"first-of-severa") == ""


def test_the_longest_times_are_left_out():
    first, second = measure(LONG_PREFIX, door, 1000, random.Random(1))
    assert 900 <= len(first) + len(second) < 990  # of equal times at the border all stay
