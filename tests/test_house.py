"""The rules of the house (CONTRIBUTING.md), read off the source: who imports whom, what nobody may use."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "vllm_core").rglob("*.py"))
PLUGINS = sorted(p for part in ("plugins", "kernels") for p in (ROOT / part).rglob("*.py") if "tests" not in p.parts)
# These import no torch.
LIGHT = ("plugin", "plugins", "hookspecs", "interfaces", "config", "cli", "commands", "builtin", "text", "simulation")
PUBLIC = re.compile(
    r"vllm_core(\.(plugin|interfaces|layers|ops|weights|text|multimodal|testing)(\..+)?|\.config\.setting(\.\w+)?|\.engine\.async_llm|\.(serving|commands|executors|simulation)(\.\w+)?)?"
)
# Words that name a feature. The core may use one only in prose (comments, docstrings).
FEATURES = re.compile(
    r"llama|qwen|mistral|mixtral|gemma|deepseek|whisper|gptq|awq|marlin|mxfp4|nvfp4|gguf|flashinfer|eagle\d*|medusa"
    r"|ngram|prompt_lookup|hermes|yarn|xgrammar|llguidance|smollm",
    re.IGNORECASE,
)


def imports(path: Path, module_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports; ``if TYPE_CHECKING`` and (if asked) functions left out."""
    found: set[str] = set()

    def visit(nodes):
        for node in nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and module_level_only:
                continue
            else:
                visit(ast.iter_child_nodes(node))

    visit(ast.parse(path.read_text()).body)
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("part", LIGHT)
def test_light_parts_of_the_core_import_no_torch(part):
    files = [p for p in CORE if p.relative_to(ROOT / "vllm_core").parts[0] in (part, f"{part}.py")]
    assert files
    heavy = {name_of(p): m for p in files for m in imports(p, True) if m.split(".")[0] in ("torch", "transformers")}
    assert not heavy


@pytest.mark.parametrize("part", LIGHT)
def test_importing_a_light_part_loads_no_torch(part):
    code = (
        "import importlib, pkgutil, sys\n"
        f"m = importlib.import_module('vllm_core.{part}')\n"
        "for x in pkgutil.walk_packages(getattr(m, '__path__', []), m.__name__ + '.'):\n"
        "    x.name.endswith('__main__') or importlib.import_module(x.name)\n"
        "sys.exit('torch' in sys.modules and 'torch was imported')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_plugins_import_only_public_modules_of_the_core():
    assert PLUGINS
    wrong = {
        name_of(p): sorted(m for m in imports(p) if m.startswith("vllm_core") and not PUBLIC.fullmatch(m))
        for p in PLUGINS
    }
    # "from vllm_core.plugin import Offer" also shows as vllm_core.plugin.Offer, which matches.
    assert not {k: v for k, v in wrong.items() if v}


def test_the_core_imports_no_plugin():
    assert not {name_of(p) for p in CORE for m in imports(p) if m.startswith(("vllm_plugin", "vllm_kernels"))}


def test_plugins_import_no_private_module_of_another_package():
    wrong = {
        name_of(p): m
        for p in PLUGINS
        for m in imports(p)
        if m.startswith(("vllm_plugin", "vllm_kernels"))
        and m.partition(".")[0] not in p.parts
        and any(part.startswith("_") for part in m.split("."))
    }
    assert not wrong


def test_the_engine_does_not_import_the_command_line():
    """Nor what is made of it for plugins."""
    above = ("vllm_core.cli", "vllm_core.commands", "vllm_core.simulation")
    for p in (ROOT / "vllm_core" / "engine").rglob("*.py"):
        assert not [m for m in imports(p) if m.startswith(above)], name_of(p)


def test_the_core_names_no_feature():
    found = []
    for path in CORE:
        tree = ast.parse(path.read_text())
        prose = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            words = []
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                words = [node.value]
            elif isinstance(node, ast.Name):
                words = [node.id]
            elif isinstance(node, ast.Attribute):
                words = [node.attr]
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                words = [node.name]
            found += [f"{name_of(path)}:{node.lineno} {w!r}" for w in words if FEATURES.search(w)]
    assert not found


def test_nothing_unsafe_is_called():
    """R16: no pickle, dill, marshal, eval, exec, shell=True, yaml.load, torch.load, trust_remote_code=True."""
    bad = []
    for path in [*CORE, *PLUGINS]:
        for module in imports(path):
            if module.split(".")[0] in ("pickle", "dill", "cloudpickle", "marshal", "shelve"):
                bad.append(f"{name_of(path)}: imports {module}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if called in ("eval", "exec", "torch.load", "yaml.load") or "True" in (
                    flags.get("shell"),
                    flags.get("trust_remote_code"),
                ):
                    bad.append(f"{name_of(path)}:{node.lineno} {called}")
    assert not bad


def test_a_long_file_says_why():
    """One concept a file: over 250 lines, the first ten say why it is longer."""
    for path in [*CORE, *PLUGINS]:
        lines = path.read_text().splitlines()
        if len(lines) > 250:
            assert re.search(r"\blong(er)?\b", "\n".join(lines[:10]), re.IGNORECASE), f"{name_of(path)}: {len(lines)}"
