"""What plugins rely on changes only when somebody means it; docs/compatibility.md has the rules."""

from __future__ import annotations

import ast
import os
import shutil
from importlib import import_module

import attrs
import pytest
from packaging.version import Version

from tests.public_api.__main__ import main
from tests.public_api.made_up import ADDS, BREAKS, FREE
from tests.public_api.modules import Tree
from tests.public_api.reading import ROOT, provisional, surface
from tests.public_api.snapshot import Snapshot, Verdict
from vllm_core import __version__
from vllm_core.hookspecs import HOOKS
from vllm_core.hookspecs.reading import read_hook
from vllm_core.plugin import HOOK_API, OLDEST_HOOK_API

PLUGINS = [
    file for part in ("plugins", "kernels") for file in (ROOT.parent / part).rglob("*.py") if "tests" not in file.parts
]


@pytest.fixture(scope="module")
def now():
    return Snapshot.now(Snapshot.read())


@pytest.fixture
def with_change(tmp_path, now):
    """``with_change(file, before, after)``: the verdict on a core in which a file of it has other text."""

    def change(file: str, before: str, after: str) -> Verdict:
        root = tmp_path / "vllm_core"
        shutil.copytree(ROOT, root, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
        text = (ROOT / file).read_text()
        assert text.count(before) == 1, f"{file} has {before!r} {text.count(before)} times"
        root.joinpath(file).unlink()
        root.joinpath(file).write_text(text.replace(before, after))
        return Verdict(now, attrs.evolve(now, names=surface(root)))

    return change


def test_the_public_api_is_the_one_that_was_accepted(now):
    verdict = Verdict(Snapshot.read(), now)
    assert not str(verdict), f"\n{verdict}"


@pytest.mark.parametrize(("file", "before", "after", "says"), BREAKS)
def test_what_breaks_plugins_is_told_with_both_lines_and_asks_for_another_hook_api(
    with_change, file, before, after, says
):
    verdict = with_change(file, before, after)
    first, _, rest = str(verdict).partition("\n\nBreaks plugins:\n")
    assert first == f"The public API is not that of public_api/snapshot.json (hook API {HOOK_API})."
    assert says in rest.partition("Breaks no plugin:")[0]
    assert "\n    - " in rest or "is new in a contract" in says
    assert f"HOOK_API must rise from {HOOK_API} to {HOOK_API + 1}" in rest
    assert ".venv/bin/python -m tests.public_api accept" in rest


@pytest.mark.parametrize(("file", "before", "after", "says"), ADDS)
def test_what_only_adds_is_told_and_asks_for_no_other_hook_api(with_change, file, before, after, says):
    verdict = with_change(file, before, after)
    assert "Breaks plugins" not in str(verdict)
    assert says in str(verdict)
    assert str(verdict).endswith(
        f"HOOK_API stays {HOOK_API}. If that is meant: .venv/bin/python -m tests.public_api accept"
    )


@pytest.mark.parametrize(("file", "before", "after"), FREE)
def test_provisional_hooks_docstrings_and_private_names_change_freely(with_change, file, before, after):
    assert str(with_change(file, before, after)) == ""


def test_no_contract_of_a_hook_is_missing(now):
    """Those of settled hooks are in the snapshot, as what plugins implement; those of provisional ones are not."""
    for name, info in HOOKS.items():
        assert (f"hook {name}" in now.names) == (not info.provisional)
        for contract in read_hook(name).contracts if not info.provisional else ():
            assert now.names[f"vllm_core.{contract}"].split()[0] in ("implemented", "given"), contract


def test_what_our_own_plugins_import_of_the_core_is_in_the_snapshot(now):
    """Else others could not do what they do. Contracts of provisional hooks are free to change, and not there."""
    tree = Tree(ROOT)
    known = {*now.names, *(f"{module}.{name}" for module, name in provisional(tree))}
    missing = {
        f"{node.module}.{alias.name}": file.relative_to(ROOT.parent)
        for file in PLUGINS
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm_core"
        for alias in node.names
        if f"{node.module}.{alias.name}" not in known and tree.module(f"{node.module}.{alias.name}") is None
    }
    assert missing == {}


# ---- HOOK_API


def verdict(names=(), *, after=(), rises=0, version="0.1.0", since="0.1.0"):
    before = Snapshot(hook_api=1, since=since, names=dict.fromkeys(names, "given def ()"))
    now = Snapshot(hook_api=1 + rises, since=since, names=dict.fromkeys(after, "given def ()"))
    return Verdict(before, now, version)


def test_a_breaking_change_needs_a_risen_hook_api_and_an_addition_does_not():
    assert verdict(["a", "b"], after=["a"]).must_rise
    assert not verdict(["a", "b"], after=["a"], rises=1).must_rise
    assert not verdict(["a"], after=["a", "b"]).must_rise


def test_hook_api_rises_by_one():
    assert verdict(rises=1).wrong == ""
    assert verdict(rises=2).wrong == "HOOK_API was 1 and is 3: it rises by one"
    assert verdict(rises=-1).wrong == "HOOK_API was 1 and is 0: it rises by one"


def test_the_core_speaks_its_own_hook_api():
    assert 1 <= OLDEST_HOOK_API <= HOOK_API


@pytest.fixture
def accept(tmp_path, capsys, now):
    """``accept(*words, without=..., since=...)``: run it on a snapshot that has a name more -> code, text, snapshot."""

    def run(*words, without="", since=__version__, extra="vllm_core.plugin.Gone"):
        file = tmp_path / "snapshot.json"
        names = {**now.names, **({extra: "given def ()"} if extra else {})}
        names.pop(without, None)
        Snapshot(hook_api=HOOK_API, since=since, names=names).write(file)
        code = main([*words], file)
        return code, capsys.readouterr().out, Snapshot.read(file)

    return run


def test_accept_takes_an_addition(accept, now):
    code, said, taken = accept("accept", without="vllm_core.plugin.Offer", extra="")
    assert (code, taken.names) == (0, now.names)
    assert "vllm_core.plugin.Offer: is new" in said


def test_accept_refuses_what_breaks_plugins_under_the_same_hook_api(accept, now):
    code, said, taken = accept("accept")
    assert code == 1
    assert "vllm_core.plugin.Gone" in taken.names
    assert said.endswith("not accepted\n")


def test_before_the_first_release_with_a_hook_api_it_can_be_told_to(accept, now):
    code, _, taken = accept("accept", "--unreleased")
    assert (code, taken.names) == (0, now.names)


def test_afterwards_it_cannot(accept):
    code, said, taken = accept("accept", "--unreleased", since="0.0.1")
    assert code == 1
    assert "vllm_core.plugin.Gone" in taken.names
    assert "not accepted: hook API 1 is that of release 0.0.1" in said


def test_show_changes_nothing(accept):
    code, said, taken = accept("show")
    assert (code, "vllm_core.plugin.Gone" in taken.names) == (1, True)
    assert "is gone" in said


def test_nothing_deprecated_is_kept_beyond_its_release():
    for name, info in HOOKS.items():
        function = getattr(import_module(info.module), name)
        for said in read_hook(name).deprecated:
            assert Version(said.goes) > Version(__version__), f"{function.__name__}: {said}"
