# ruff: noqa: E501 - a table
"""Each rule of tests/test_house.py fails on a file that breaks it, and passes on one that does not."""

from __future__ import annotations

import pytest

from tests import test_house as house

INNOCENT = '"""llama in prose is fine."""\nimport json\n\nif TYPE_CHECKING:\n    import torch\n'
BROKEN = [
    ("light_parts_of_the_core_import_no_torch", ("config",), "vllm_core/config/x.py", "from torch import Tensor"),
    ("light_parts_of_the_core_import_no_torch", ("cli",), "vllm_core/cli/x.py", "try:\n    import transformers\nexcept ImportError: ..."),
    ("light_parts_of_the_core_import_no_torch", ("plugin",), "vllm_core/plugin.py", "import torch.nn as nn"),
    ("plugins_import_only_public_modules_of_the_core", (), "plugins/a/b/x.py", "from vllm_core.engine.core import EngineCore"),
    ("plugins_import_only_public_modules_of_the_core", (), "kernels/x.py", "def f():\n    import vllm_core.runner.rows"),
    ("plugins_import_only_public_modules_of_the_core", (), "plugins/a/b/x.py", "from vllm_core import engine"),
    ("plugins_import_no_private_module_of_another_package", (), "plugins/a/b/x.py", "from vllm_plugin_cpu_attention._things import x"),
    ("plugins_import_no_private_module_of_another_package", (), "plugins/a/b/x.py", "from vllm_plugin_cpu_attention.backend import _x"),
    ("the_core_imports_no_plugin", (), "vllm_core/engine/x.py", "def f():\n    import vllm_plugin_owl"),
    ("the_core_imports_no_plugin", (), "vllm_core/engine/x.py", "from vllm_kernels import norm"),
    ("the_engine_does_not_import_the_command_line", (), "vllm_core/engine/x.py", "from vllm_core.cli.errors import UsageError"),
    ("the_engine_does_not_import_the_command_line", (), "vllm_core/engine/x.py", "def f():\n    from vllm_core import cli"),
    ("the_engine_does_not_import_the_command_line", (), "vllm_core/engine/x.py", "from vllm_core.commands import load"),
    ("the_core_names_no_feature", (), "vllm_core/engine/x.py", 'KIND = "qwen3"'),
    ("the_core_names_no_feature", (), "vllm_core/engine/x.py", "def load_gguf(): ..."),
    ("nothing_unsafe_is_called", (), "vllm_core/engine/x.py", "import pickle"),
    ("nothing_unsafe_is_called", (), "vllm_core/engine/x.py", "import subprocess\nsubprocess.run('ls', shell=True)"),
    ("nothing_unsafe_is_called", (), "vllm_core/engine/x.py", "import yaml\nyaml.load('x')"),
    ("nothing_unsafe_is_called", (), "vllm_core/engine/x.py", "from torch import load\nimport torch\ntorch.load('x')"),
    ("nothing_unsafe_is_called", (), "plugins/a/b/x.py", "print(eval('1'))"),
    ("a_long_file_says_why", (), "vllm_core/engine/x.py", "x = 1\n" * 251),
]  # fmt: skip


@pytest.fixture
def source(tmp_path, monkeypatch):
    """``source(place, text)``: a repository with this one file."""

    def write(place: str, text: str) -> None:
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        monkeypatch.setattr(house, "ROOT", tmp_path)
        monkeypatch.setattr(house, "CORE", sorted((tmp_path / "vllm_core").rglob("*.py")))
        monkeypatch.setattr(
            house, "PLUGINS", sorted(f for p in ("plugins", "kernels") for f in (tmp_path / p).rglob("*.py"))
        )

    return write


@pytest.mark.parametrize(("rule", "arguments", "place", "text"), BROKEN)
def test_a_file_that_breaks_a_rule_is_found(source, rule, arguments, place, text):
    source(place, text)
    with pytest.raises(AssertionError):
        getattr(house, f"test_{rule}")(*arguments)


@pytest.mark.parametrize(
    ("rule", "arguments", "place"), sorted({(rule, words, place) for rule, words, place, _ in BROKEN})
)
def test_an_innocent_file_passes(source, rule, arguments, place):
    source(place, INNOCENT)
    getattr(house, f"test_{rule}")(*arguments)


def test_every_rule_of_the_house_has_such_a_file():
    rules = {name.removeprefix("test_") for name in vars(house) if name.startswith("test_")}
    assert rules - {rule for rule, *_ in BROKEN} == {"importing_a_light_part_loads_no_torch"}  # the one that runs
