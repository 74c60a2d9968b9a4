"""Asking hooks: what raises is a refusal, what hangs ends the start by name."""

import threading
import time

import pytest
from dummies import catalog_of

from vllm_core.plugin import Offer
from vllm_core.plugins import PluginError, Question, Selector
from vllm_core.plugins.ask import ask
from vllm_core.plugins.patience import Overdue, Patience
from vllm_core.plugins.policy import Policy

GOOD = {"name": "good", "attention_backend": Offer(name="good", target="a:B")}
QUICK = Policy(answer_timeout=0.1)


@pytest.fixture
def hangs():
    """A hook that returns only after the test."""
    end = threading.Event()
    yield lambda query: end.wait(60) and None
    end.set()


def test_a_hook_that_hangs_ends_the_start_and_names_plugin_hook_and_remedy(hangs):
    catalog = catalog_of(GOOD, {"name": "sleepy", "attention_backend": hangs, "version": "3.1"}, policy=QUICK)
    begun = time.monotonic()
    with pytest.raises(PluginError) as error:
        Selector(catalog).choose("attention_backend", {})
    assert time.monotonic() - begun < 5
    text = str(error.value)
    assert text.startswith('plugin "sleepy" was asked for attention_backend and had not answered after 0.1 s.')
    assert "dist-sleepy 3.1" in text
    assert 'block = ["sleepy"] under [plugins] in vllm.toml' in text


def test_a_blocked_offer_is_not_asked_and_cannot_hang(hangs):
    sleepy = {"name": "sleepy", "attention_backend": hangs, "lists": ["attention_backend:sleepy"]}
    policy = Policy(answer_timeout=0.1, block=["attention_backend:sleepy"])
    assert Selector(catalog_of(GOOD, sleepy, policy=policy)).choose("attention_backend", {}).offer.name == "good"


def test_a_hook_that_raises_is_a_refusal_and_the_next_ones_are_asked():
    def fails(query):
        raise TimeoutError("of its own")

    catalog = catalog_of({"name": "bad", "attention_backend": fails, "lists": ["attention_backend:bad"]}, GOOD)
    bad, good = ask(catalog, Question("attention_backend", {}, named="bad"))
    assert (bad.name, bad.refusal) == ("bad", "raised TimeoutError: of its own")
    assert good.offer.name == "good"


def test_asking_leaves_no_thread_behind():
    before = threading.active_count()
    for _ in range(20):
        ask(catalog_of(GOOD, policy=QUICK), Question("attention_backend", {}))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_patience_gives_results_and_errors_in_order_and_ends():
    with Patience(30) as patience:
        assert [patience.call(lambda n=n: n) for n in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError):
            patience.call(lambda: {}["x"])
        assert patience.call(threading.current_thread) is not threading.main_thread()
    with Patience(0.05) as patience, pytest.raises(Overdue):
        patience.call(lambda: time.sleep(1))
