"""docs/ says what the declarations say."""

from pathlib import Path

import pytest

from vllm_core.config.declared import declared
from vllm_core.config.docs import main, pages
from vllm_core.config.engine import EngineSettings
from vllm_core.config.vllm_names import vllm_names
from vllm_core.hookspecs import HOOKS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", pages())
def test_a_generated_page_is_fresh(name):
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run: make docs"


def test_every_flag_stands_in_the_settings_page():
    page = pages()["settings.md"]
    assert [s.flag for s in declared(EngineSettings).values() if f"| `{s.flag}` |" not in page] == []


def test_provisional_hooks_are_marked_in_the_hooks_page():
    page = pages()["hooks.md"]
    for hook in HOOKS.values():
        assert (f"### {hook.name} *(provisional)*\n" in page) == hook.provisional
        assert f"### {hook.name}" in page


def test_no_name_of_vllms_that_we_lack_is_one_that_we_have():
    assert not set(vllm_names()) & set(declared(EngineSettings))


def test_the_pages_can_be_written_elsewhere(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "hooks.md").read_text(encoding="utf-8") == pages()["hooks.md"]
    assert "settings.md" in capsys.readouterr().out
