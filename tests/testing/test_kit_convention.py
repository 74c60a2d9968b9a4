"""What reports go by holds of every kit: who it is for, what it tests, where it begins."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
from pluggy import PluginManager

import vllm_core.testing
from vllm_core.hookspecs import ASKED, HOOKS
from vllm_core.testing import Conformance
from vllm_core.testing.cannot import CannotReport

KITS = [
    kit
    for name in vllm_core.testing.__all__
    if inspect.isclass(kit := getattr(vllm_core.testing, name)) and issubclass(kit, Conformance)
]


@pytest.mark.parametrize("kit", [kit for kit in KITS if kit is not Conformance], ids=lambda kit: kit.__name__)
def test_a_kit_says_for_which_kind_it_is_and_what_names_its_subject(kit):
    assert kit.kind == kit.kind.lower().replace("_", "-")
    assert {"kind", "hook"} <= vars(kit).keys(), f"{kit.__name__} begins in its base"
    assert kit.hook in ASKED & HOOKS.keys()
    assert kit.subject in inspect.get_annotations(kit) | inspect.get_annotations(kit.__base__)
    assert kit.subject in kit.__doc__
    with pytest.raises(AttributeError):
        kit.named()

    tested = type("TestRapid", (kit,), {kit.subject: "rapid"})
    assert (tested.named(), dict(tested.limits())) == ("rapid", {})
    assert list(Conformance.measure()) == []


def test_every_class_of_a_kit_is_derived_from_the_one_that_reports_go_by():
    named = {name for name in vllm_core.testing.__all__ if name.endswith("Conformance")}
    assert named == {kit.__name__ for kit in KITS}
    assert len({kit.kind for kit in KITS if kit is not Conformance}) == len(KITS) - 1


class TestOwl(Conformance):
    __test__ = False
    cannot = {"dive": "it flies"}


def test_a_capability_that_is_lacking_skips_the_test_with_its_reason():
    with pytest.raises(pytest.skip.Exception, match=r"TestOwl cannot: dive \(it flies\)"):
        TestOwl().needs("dive")
    TestOwl().needs("fly")
    with pytest.raises(pytest.skip.Exception, match=r"TestOwl cannot: dive \(it flies\)"):
        TestOwl().test_what_it_cannot_do_is_printed()


def test_a_capability_that_is_lacking_without_a_reason_fails():
    silent = type("TestSilent", (Conformance,), {"cannot": {"dive": " "}})
    with pytest.raises(AssertionError, match="gives no reason for dive"):
        silent().test_what_it_cannot_do_is_printed()
    Conformance().test_what_it_cannot_do_is_printed()


def test_all_that_it_lists_as_impossible_is_printed_and_not_cannot_alone():
    class TestMore(TestOwl):
        @classmethod
        def limits(cls):
            return {**cls.cannot, "swim": "it is an owl"}

    config = SimpleNamespace(pluginmanager=PluginManager("pytest"))
    TestMore().pytest_generate_tests(SimpleNamespace(config=config, fixturenames=[]))
    printed = config.pluginmanager.get_plugin(CannotReport.name).lines
    assert list(printed) == ["TestMore cannot: dive (it flies)", "TestMore cannot: swim (it is an owl)"]
