"""A run of conformance tests, read back: whose tests they are, how they ended, what was measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_core.testing import Conformance, ModelConformance, ReasoningParserConformance
from vllm_core.testing.parts import kit_of, part_of, replaced
from vllm_core.testing.report import read_report

BIRDS = """
import pytest
from vllm_core.testing import Conformance, Measured

class Flying:
    def test_it_flies(self): assert self.bird != "penguin", "it stays on the ground"
    def test_it_lands(self): assert len(self.bird) == 3

class BirdConformance(Flying, Conformance):
    kind, hook, subject = "bird", "birds", "bird"
    def test_it_swims(self): self.needs("swim")
    def test_it_glows(self): pytest.skip("needs a dark room")
    @pytest.mark.parametrize("meal", ["mouse", "fish"])
    def test_it_eats(self, meal): pass
    @classmethod
    def measure(cls):
        if cls.bird == "emu": raise OSError("no stopwatch")
        return [Measured("one flight", 1.5, "times as fast as a sparrow")]
"""
TESTS = '''
import pytest
from birds import BirdConformance

class TestOwl(BirdConformance):
    bird = "owl"
    cannot = {"swim": "it would get wet"}
    def test_of_its_own(self): raise AssertionError

class TestPenguin(BirdConformance):
    bird = "penguin"
    def test_it_swims(self): pass

class TestEmu(BirdConformance):
    bird = "emu"
    @pytest.fixture(autouse=True)
    def _watched(self): yield

@pytest.mark.xfail(reason="it is lazy")
class TestHen(BirdConformance):
    bird = "hens"

class TestNest:
    def test_it_is_warm(self): raise AssertionError
'''  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("birds")
    folder.joinpath("birds.py").write_text(BIRDS)
    folder.joinpath("test_birds.py").write_text(TESTS)
    folder.joinpath("test_broken.py").write_text("import no_such_module_anywhere\n")
    words = ["-q", "-p", "no:cacheprovider", "-p", "vllm_core.testing.report", "--continue-on-collection-errors"]
    words += ["--conformance", "rows.json", "--conformance-measure"]
    path = os.pathsep.join([str(folder), *(entry or os.getcwd() for entry in sys.path)])
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *words]
    done = subprocess.run(
        command, cwd=folder, env={**environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert folder.joinpath("rows.json").exists(), done.stdout + done.stderr
    return read_report(folder / "rows.json")


@pytest.fixture
def rows(report):
    return {row.tests: row for row in report.rows}


def test_each_class_has_a_row_with_its_kind_and_what_it_tests(rows):
    assert rows.keys() == {"TestOwl", "TestPenguin", "TestEmu", "TestHen"}
    owl = rows["TestOwl"]
    assert (owl.kind, owl.hook, owl.offer, Path(owl.file).name) == ("bird", "birds", "owl", "test_birds.py")


def test_tests_count_by_the_part_of_the_kit_that_they_come_from(rows):
    assert rows["TestOwl"].passed == {"flying": 2, "kit": 2}
    assert rows["TestOwl"].collected == {"flying": 2, "kit": 5}


def test_what_it_cannot_do_is_listed_and_what_was_not_run_has_a_reason(rows):
    assert rows["TestOwl"].cannot == {"swim": "it would get wet"}
    assert rows["TestOwl"].skipped == {"needs a dark room": 1}
    assert rows["TestOwl"].failed == []


def test_a_failure_is_named_with_its_reason(rows):
    flies, lands = rows["TestPenguin"].failed
    assert (flies.test, flies.part) == ("test_it_flies", "flying")
    assert flies.reason.startswith("AssertionError: it stays on the ground")
    assert "birds.py:" in flies.reason
    assert "assert len(self.bird) == 3" in lands.reason


def test_a_test_of_the_kit_that_a_class_replaces_is_told(rows):
    assert rows["TestPenguin"].replaced == ["test_it_swims"]
    assert rows["TestOwl"].replaced == []


def test_a_failure_that_was_expected_is_a_failure_here(rows):
    """The kit's way to say so is ``cannot``, which reports show."""
    (failure,) = rows["TestHen"].failed
    assert (failure.test, rows["TestHen"].passed["flying"]) == ("test_it_lands", 1)
    assert "marked to fail (it is lazy)" in failure.reason


def test_figures_are_taken_of_what_passed(rows):
    (one,) = rows["TestOwl"].measured
    assert (one.what, one.value, one.unit) == ("one flight", 1.5, "times as fast as a sparrow")
    assert rows["TestPenguin"].measured == []
    assert rows["TestEmu"].unmeasured == "OSError: no stopwatch"


def test_a_file_that_cannot_be_read_is_named(report):
    assert list(report.broken) == ["test_broken.py"]
    assert "no_such_module_anywhere" in report.broken["test_broken.py"]


def test_the_kits_of_this_core_and_the_device_are_told(report):
    assert report.kits["tool-parser"] == "tool_parser"
    assert report.kits["model"] == "models"
    assert report.device


def test_only_tests_of_the_kit_count_and_each_belongs_to_a_part():
    class Own(ModelConformance):
        architecture = "OwnForCausalLM"

        def test_of_its_own(self):
            raise AssertionError

    assert part_of(Own, "test_each_tensor_matters") == "tensors"
    assert part_of(Own, "test_a_whole_prompt_gives_the_references_logits") == "modes"
    assert part_of(Own, "test_of_its_own") is None
    assert part_of(Path, "exists") is None
    assert part_of(ReasoningParserConformance, "test_the_plugin_module_imports_without_torch") == "parser"
    assert (kit_of(Own), kit_of(ReasoningParserConformance), kit_of(Conformance)) == (
        ModelConformance,
        ReasoningParserConformance,
        Conformance,
    )
    assert replaced(Own) == []
