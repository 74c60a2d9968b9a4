"""Capabilities that a setting asks for: who lacks them is passed over, with that reason."""

import pytest
from dummies import catalog_of

from vllm_core.plugin import Offer, Rank, Refusal
from vllm_core.plugins import NoOffer, Selector
from vllm_core.plugins.explain import format_explain
from vllm_core.plugins.index import absent
from vllm_core.plugins.needs import INVARIANT

HOOK = "attention_backend"


def offer(name, rank, *capabilities):
    return Offer(name=name, target="json:loads", rank=rank, capabilities=frozenset(capabilities))


def catalog():
    return catalog_of(
        {"name": "a", HOOK: offer("fast", Rank.TUNED, "lse")},
        {"name": "b", HOOK: offer("steady", Rank.PORTABLE, "batch_invariant")},
        {"name": "c", HOOK: Refusal("too old", name="old")},
    )


def test_only_offers_with_the_capability_are_taken_and_the_others_say_what_they_lack():
    assert Selector(catalog()).choose(HOOK, {}).offer.name == "fast"

    decision = Selector(catalog(), needs=[INVARIANT]).choose(HOOK, {})

    assert decision.offer.name == "steady"
    reasons = {a.name: a.refusal for a in decision.answers}
    assert reasons == {
        "fast": 'does not say that it is "batch_invariant" (--batch-invariant)',
        "steady": "",
        "old": "too old",
    }
    assert 'does not say that it is "batch_invariant"' in format_explain([decision])


def test_a_backend_that_was_named_and_lacks_it_is_an_error_with_the_one_that_has_it():
    with pytest.raises(NoOffer) as error:
        Selector(catalog(), needs=[INVARIANT]).choose(HOOK, {}, "fast", asked_by="--attention-backend")
    assert "does not say that it is" in str(error.value)
    assert "steady" in str(error.value)


def test_nobody_with_the_capability_is_an_error_with_everybodys_reason():
    lone = catalog_of(
        {"name": "a", HOOK: offer("fast", Rank.TUNED)}, {"name": "c", HOOK: Refusal("too old", name="old")}
    )
    with pytest.raises(NoOffer) as error:
        Selector(lone, needs=[INVARIANT]).choose(HOOK, {})
    assert "--batch-invariant" in str(error.value)
    assert "too old" in str(error.value)


def test_hooks_that_compute_nothing_are_asked_as_ever():
    plain = catalog_of({"name": "a", "executor": offer("here", Rank.TUNED)})
    assert Selector(plain, needs=[INVARIANT]).choose("executor", {}).offer.name == "here"


def test_packages_of_a_kind_that_are_not_here_can_be_named(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def distribution(name):
        if name == "vllm-plugin-cpu-native":
            raise PackageNotFoundError(name)
        return True

    monkeypatch.setattr("importlib.metadata.distribution", distribution)
    assert absent("op_kernel") == ["vllm-plugin-cpu-native"]
