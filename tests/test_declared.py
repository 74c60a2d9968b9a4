"""Each package declares what it imports, and imports what it declares: read off the source of all of them.

A plugin declares vllm-core, and what vllm-core does not declare itself; what that declares comes with it.
tests/isolation installs each package with what it declares, and imports all of its modules there.
"""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packages import Package, core, plugin_packages

PACKAGES = [core(), *plugin_packages()]
OURS = {module: package.distribution for package in PACKAGES for module in package.modules}
INSTALLED = packages_distributions()
# Modules of distributions that may not be installed here.
ELSEWHERE = {
    "cupy": "cupy-cuda13x",
    "flash_attn": "flash-attn-4",
    "flashinfer": "flashinfer-python",
    "matplotlib": "matplotlib",
    "triton": "triton",
}
NOT_ASKED_FOR = {
    "vllm": "bench peers: run by the Python of the peer, which has it",
    "measure": "lies beside the file that imports it, which another Python runs",
    "workloads": "lies beside the file that imports it, which another Python runs",
}
NOT_IMPORTED = {
    "uvloop": "uvicorn takes it where it is there",
    "cupy-cuda12x": "the module of cupy-cuda13x, for CUDA 12",
}


def imported(package: Package) -> dict[str, set[str]]:
    """Module at the top level, of others -> the distributions that may bring it."""
    found: dict[str, set[str]] = {}
    for file in (f for module in package.modules for f in package.folder.joinpath(module).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module or "")
            for top in {name.partition(".")[0] for name in names}:
                if top not in sys.stdlib_module_names and top not in package.modules and top not in NOT_ASKED_FOR:
                    known = [OURS[top]] if top in OURS else INSTALLED.get(top) or [ELSEWHERE.get(top, f"module {top}")]
                    found[top] = {canonicalize_name(name) for name in known}
    return found


def declared(package: Package, extras: bool = True) -> set[str]:
    texts = package.pyproject["project"].get("optional-dependencies", {}).values() if extras else ()
    more = [Requirement(text) for group in texts for text in group]
    return {canonicalize_name(one.name) for one in [*package.requirements, *more]}


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_what_a_package_imports_it_declares(package):
    comes_with_the_core = declared(core(), extras=False) if "vllm-core" in declared(package) else set()
    known = declared(package) | comes_with_the_core
    assert {top: names for top, names in imported(package).items() if not names & known} == {}


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_what_a_package_declares_it_imports(package):
    used = {name for names in imported(package).values() for name in names}
    assert sorted(declared(package) - used - NOT_IMPORTED.keys()) == []


def test_an_undeclared_import_and_a_needless_declaration_are_noticed(tmp_path):
    tmp_path.joinpath("pyproject.toml").write_text(
        '[project]\nname = "x"\ndependencies = ["vllm-core", "msgspec"]\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["x"]\n'
    )
    tmp_path.joinpath("x").mkdir()
    tmp_path.joinpath("x", "a.py").write_text("import vllm_core\ndef f():\n    import xgrammar, json\n")
    package = Package("x", tmp_path)
    with pytest.raises(AssertionError, match="xgrammar"):
        test_what_a_package_imports_it_declares(package)
    with pytest.raises(AssertionError, match="msgspec"):
        test_what_a_package_declares_it_imports(package)
