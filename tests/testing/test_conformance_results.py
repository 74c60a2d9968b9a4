"""The table of what plugins pass is made of what pytest reports, and is known to be old without running it again."""

from __future__ import annotations

import copy
import json
from collections import Counter

import attrs
import pytest

from tests import conformance_results
from tests.conformance_page import render
from tests.conformance_results import DOCS, collected, here, main, read, stale
from tests.packages import Package, plugin_packages
from vllm_core.testing.row import Row

REFRESH = "make conformance-stale refreshes them"


def row(offer, tests, **more):
    given = {"kind": "model", "hook": "models", "file": "plugins/x/tests/test_x.py", "cannot": {"lora": "not a | yet"}}
    return Row(offer=offer, tests=tests, **{**given, **more})


def test_the_page_says_what_passed_what_was_not_run_and_what_it_cannot():
    counts = {"passed": Counter(modes=4, fields=2), "skipped": Counter({"needs a CUDA device": 1})}
    packages = {
        "vllm-plugin-owl": [row("OwlForCausalLM", "TestOwl", **counts)],
        "vllm-plugin-rook": [row("RookForCausalLM", "TestRook")],
        "vllm-plugin-wren": [],
    }
    text = render("here", packages)
    assert "| `OwlForCausalLM`, vllm-plugin-owl | `TestOwl` | fields 2, modes 4 | 1: needs a CUDA device |" in text
    assert "| lora | not a \\| yet | `OwlForCausalLM`, `RookForCausalLM` |" in text
    assert "| vllm-plugin-owl | model | 6 | 1 | lora |" in text
    assert "With tests of their own only: vllm-plugin-wren." in text
    assert "none failed. Run with here." in text


def test_a_row_is_stale_if_its_class_its_tests_or_what_it_cannot_do_is_another():
    before = {"owl": [attrs.asdict(row("Owl", "TestOwl", collected=Counter(modes=4)))], "wren": []}
    assert stale(before, before) == {}
    now = copy.deepcopy(before)
    now["owl"][0]["passed"] = {"modes": 3}  # what only a run can tell
    assert stale(before, now) == {}
    now["owl"][0]["cannot"] = {}
    assert stale(before, now) == {"owl": "owl: TestOwl has another cannot"}
    now["owl"][0]["collected"] = {"modes": 5}
    assert stale(before, now) == {"owl": "owl: TestOwl has another cannot, collected"}
    now["owl"][0]["tests"] = "TestOwls"
    assert stale(before, now) == {"owl": "owl: TestOwl is gone; TestOwls is new"}
    assert stale(before, {"owl": before["owl"]}) == {"wren": "wren is not there any more"}
    assert stale({}, {"wren": []}) == {"wren": "wren has no entry yet"}


def test_a_folder_of_tests_gives_its_rows_and_a_failure_writes_nothing(tmp_path, monkeypatch):
    """Of one package here, and of one that fails."""
    out = tmp_path / "table.json"
    (hermes,) = (package for package in plugin_packages() if package.label == "parsers/hermes")
    failing = tmp_path / "owl" / "tests" / "test_failing.py"
    failing.parent.mkdir(parents=True)
    failing.write_text(
        "from vllm_core.testing import ReasoningParserConformance\n"
        "class TestIt(ReasoningParserConformance):\n    parser = 'unheard of'\n    examples = {}\n"
    )
    failing.parents[1].joinpath("pyproject.toml").write_text('[project]\nname = "owl"\n')
    with monkeypatch.context() as patch:
        patch.setattr(conformance_results, "plugin_packages", lambda: [Package("owl", failing.parents[1])])
        assert main(["--out", str(out)]) == 1
    assert not out.exists()
    assert main(["--out", str(out), str(hermes.folder / "tests")]) == 0
    made = json.loads(out.read_text())
    (found,) = made["packages"]["vllm-plugin-hermes-tools"]
    assert (found["kind"], found["offer"], found["tests"]) == ("tool-parser", "hermes", "TestHermes")
    assert found["collected"] == {**found["passed"], "kit": found["passed"]["kit"]}
    assert stale(made["packages"], collected([hermes])) == {}
    assert "## Tool parser" in out.with_suffix(".md").read_text()


def test_the_page_is_made_from_its_results():
    for file in DOCS.glob("conformance_results*.json"):
        made = json.loads(file.read_text())
        assert file.with_suffix(".md").read_text() == render(made["with"], read(made["packages"])), REFRESH


@pytest.mark.slow
def test_the_page_tells_of_the_classes_that_are_there_now():
    _, name = here()
    packages = [package for package in plugin_packages() if package.folder.joinpath("tests").is_dir()]
    made = json.loads((DOCS / f"{name}.json").read_text())
    said = stale(made["packages"], collected(packages))
    assert not said, "\n".join([f"docs/{name}.md is old; {REFRESH}:", *said.values()])
