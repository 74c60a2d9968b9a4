"""docs/new-plugin.md is true: its code is that of packages with tests. test_rendered.py runs its commands."""

from __future__ import annotations

from tests.packages import ROOT
from tests.template.kinds import EXAMPLES
from tests.template.page import PAGE, code

OWL = ROOT / "tests" / "third_party" / "packages" / "owl" / "vllm_plugin_owl" / "model.py"


def test_the_code_is_that_of_packages_with_tests():
    sources = [next(EXAMPLES["olmo2"].glob("vllm_plugin_*/model.py")).read_text(), OWL.read_text()]
    (changed,) = code("diff")
    blocks = [*code("python"), *(f"{line[1:]}\n" for line in changed.splitlines())]
    assert len(blocks) > 8
    assert [block for block in blocks if not any(block in source for source in sources)] == []


def test_the_worked_model_has_as_many_lines_as_the_page_says():
    files = EXAMPLES["olmo2"].glob("vllm_plugin_*/*.py")
    lines = sum(len(file.read_text().splitlines()) for file in files)
    assert f"The package has {lines} lines of Python." in PAGE
    assert lines <= 120
