"""What holds of the packages of all kinds together: quick to find out."""

from __future__ import annotations

import ast
import json
import re
import tomllib

import pytest

from tests.template.kinds import KINDS, TEMPLATE
from vllm_core.cli.template.kinds import find_kind, kinds
from vllm_core.hookspecs import HOOKS
from vllm_core.plugin import HOOK_API
from vllm_core.plugins.errors import PluginError
from vllm_core.plugins.records import kind_of

WITHOUT_A_KIND = {"provides", "settings", "model", "kv_cache_layout"}
"""Hooks that go with others': a listing, settings, a fallback for all models, a layout of an attention backend's."""

VARIABLE = re.compile(r"\{[{%] *(name|module|class_name|distribution|kind|hook|hook_api|author|year|license|use|if)\b")


def test_every_kind_is_installed_from_its_wheel_and_listed_beside_all_others(workshop):
    listed = workshop.run(
        ["python", "-m", "vllm_core", "plugins", "list", "--json"], workshop.site(*KINDS), workshop.folder
    )
    assert listed.code == 0, listed.err
    found = {row["name"]: row for row in json.loads(listed.out)}
    for kind in KINDS:
        row = found[workshop.name(kind)]
        assert row["state"] == "active", f"{kind}: {row['reason']}"
        assert row["distribution"] == f"vllm-plugin-{workshop.name(kind)}"
        hook = kinds()[kind].hook
        assert hook in row["hooks"]
        assert kind_of(hook) in {offer["kind"] for offer in row["provides"]}, f"{kind} offers nothing of its hook"
        assert all(offer["asked"] for offer in row["provides"])


def test_what_is_rendered_is_well_formed(workshop):
    folders = [str(workshop.render(kind)) for kind in KINDS]
    for words in (["check"], ["format", "--check"]):
        done = workshop.run(["ruff", *words, "--no-cache", *folders], workshop.folder, workshop.folder)
        assert done.code == 0, done.out + done.err
    for kind in KINDS:
        files = [file for file in workshop.render(kind).rglob("*") if file.is_file()]
        left = [f"{kind}: {file.name}" for file in files if VARIABLE.search(file.read_text())]
        assert left == [], "variables of the template are left"
        assert [
            file.name for file in files if file.suffix == ".jinja" or file.name in ("kind.toml", "copier.yml")
        ] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_what_a_published_one_needs(workshop, kind):
    folder, name = workshop.render(kind), workshop.name(kind)
    module = f"vllm_plugin_{name}".replace("-", "_")
    project = tomllib.loads(folder.joinpath("pyproject.toml").read_text())["project"]
    assert project["entry-points"]["vllm_core.plugins"] == {name: module}
    assert project["license"] == "Apache-2.0"
    assert {"README.md", "LICENSE", "PUBLISHING.md", ".gitignore"} <= {file.name for file in folder.iterdir()}
    assert folder.joinpath(".github", "workflows", "test.yml").is_file()
    tree = ast.parse(folder.joinpath(module, "__init__.py").read_text())
    (literal,) = [n.value.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "HOOK_API"]
    assert literal == HOOK_API


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_what_it_is_in_one_line(kind):
    assert {"copier.yml", "kind.toml", "ABOUT.md.jinja"} <= {file.name for file in TEMPLATE.joinpath(kind).iterdir()}
    found = kinds()[kind]
    assert 10 < len(found.about) < 90
    assert not found.about.endswith(".")


def test_a_hook_that_nobody_asks_has_no_kind_and_the_reason_is_said():
    for name, info in HOOKS.items():
        if not info.asked:
            with pytest.raises(PluginError, match="this version asks the hook"):
                find_kind(name.replace("_", "-"))


def test_a_hook_named_in_place_of_its_kind_leads_to_it():
    with pytest.raises(PluginError, match='did you mean "model"'):
        find_kind("models")
    with pytest.raises(PluginError, match='did you mean "model"'):
        find_kind("modle")
