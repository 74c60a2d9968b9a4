"""The table of what plugins pass is made of what pytest reports."""

from __future__ import annotations

from collections import Counter

from tests.conformance_results import Collector, Row, kit_of, main, part_of, render
from tests.packages import ROOT
from vllm_core.testing import ModelConformance, ReasoningParserConformance


class Own(ModelConformance):
    architecture = "OwnForCausalLM"

    def test_of_its_own(self):
        raise AssertionError


def test_only_tests_of_the_kit_count_and_each_belongs_to_a_part():
    assert part_of(Own, "test_each_tensor_matters") == "tensors"
    assert part_of(Own, "test_a_whole_prompt_gives_the_references_logits") == "modes"
    assert part_of(Own, "test_of_its_own") is None
    assert part_of(Collector, "pytest_runtest_logreport") is None
    assert (kit_of(Own), kit_of(ReasoningParserConformance), kit_of(Row)) == ("Model", "ReasoningParser", "")


def test_the_table_says_what_passed_what_was_not_run_and_what_it_cannot():
    row = Row("Model", "OwlForCausalLM", "TestOwl", "vllm-plugin-owl", {"lora": "not a | yet"})
    row.passed, row.skipped = Counter(modes=4, fields=2), Counter({"needs a CUDA device": 1})
    rook = Row("Model", "RookForCausalLM", "TestRook", "vllm-plugin-rook", row.cannot)
    text = render([rook, row], "here")
    assert "| `OwlForCausalLM`, vllm-plugin-owl | `TestOwl` | fields 2, modes 4 | 1: needs a CUDA device |" in text
    assert "| lora | not a \\| yet | `OwlForCausalLM`, `RookForCausalLM` |" in text
    assert "none failed. Run with here." in text


def test_a_folder_of_tests_gives_its_rows_and_a_failure_writes_nothing(tmp_path):
    """Of one package here; of a file that fails, and of one without a kit."""
    out = tmp_path / "table.md"
    failing = tmp_path / "test_failing.py"
    failing.write_text(
        "from vllm_core.testing import ReasoningParserConformance\n"
        "class TestIt(ReasoningParserConformance):\n    parser = 'unheard of'\n    examples = {}\n"
    )
    assert main(["--out", str(out), str(failing)]) != 0
    assert not out.exists()
    (parsers, *_) = ROOT.glob("plugins/parsers/*/tests")
    assert main(["--out", str(out), str(parsers)]) == 0
    assert "## Tool parser" in out.read_text() or "## Reasoning parser" in out.read_text()
    assert "vllm-plugin-" in out.read_text()
