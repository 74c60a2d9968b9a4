"""The environments of these tests hide what a package does not declare."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from tests.isolation.environment import Environment, build_wheel, declared, link

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "leaky"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["leaky"]
"""


@pytest.fixture
def leaky(tmp_path):
    """A package that imports a library of its choice; as wheel, with the libraries that it declares."""
    source = tmp_path / "source" / "leaky"
    source.mkdir(parents=True)
    source.with_name("pyproject.toml").write_text(PYPROJECT)

    def build(code: str, *requirements: str) -> Environment:
        source.joinpath("__init__.py").write_text(code)
        wheel = build_wheel(source.parent, tmp_path / "wheel")
        return Environment(tmp_path, [wheel], link(declared(map(Requirement, requirements)), tmp_path / "libraries"))

    return build


def test_an_undeclared_library_cannot_be_imported(leaky):
    done = leaky("import msgspec")("python", "-c", "import leaky")
    assert done.code == 1
    assert "No module named 'msgspec'" in done.err


def test_a_declared_library_and_what_it_needs_can(leaky):
    done = leaky("import cattrs, attrs", "cattrs>=1")("python", "-c", "import leaky; print(leaky.__file__)")
    assert done.code == 0, done.err
    assert "/venv/lib/" in done.out


def test_packages_of_the_developers_environment_are_hidden(leaky):
    done = leaky("")("python", "-c", "import sys, leaky; print(*sys.path); import vllm_core")
    assert done.code == 1
    assert "No module named 'vllm_core'" in done.err


def test_a_declared_library_that_is_not_installed_is_named():
    with pytest.raises(AssertionError, match=r"it declares unheard-of>=2, which is not installed here"):
        declared([Requirement("unheard-of>=2")])


def test_libraries_of_an_extra_come_only_with_it():
    plain, more = declared([Requirement("huggingface-hub")]), declared([Requirement("huggingface-hub[torch]")])
    assert "torch" not in plain
    assert more.keys() > plain.keys() | {"torch", "safetensors"}
