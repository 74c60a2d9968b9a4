"""``vllm-core plugins new``: what it makes, says and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest

from tests.packages import ROOT, core
from vllm_core.cli import main
from vllm_core.cli.template.names import Names
from vllm_core.plugins.errors import PluginError

KINDS = [file.parent.name for file in ROOT.joinpath("plugin_template").glob("*/kind.toml")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, and nobody's settings."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return work


@pytest.fixture
def new(capsys):
    """``new("owl", "--kind", "model")`` -> (exit code, standard output, standard error)."""

    def call(*words):
        code = main(["plugins", "new", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_it_says_what_it_made_and_what_to_do_next(new, folder):
    code, out, err = new("barn-owl", "--kind", "model")
    assert (code, err) == (0, "")
    made = [file for file in folder.joinpath("vllm-plugin-barn-owl").rglob("*") if file.is_file()]
    assert out.startswith(f"vllm-plugin-barn-owl: {len(made)} files of a model plugin in vllm-plugin-barn-owl\n")
    lines = [line.strip() for line in out.splitlines()]
    first = lines.index("next") + 1
    assert lines[first : first + 3] == [
        "cd vllm-plugin-barn-owl && pip install -e '.[test]'",
        "pytest",
        "vllm-core plugins check vllm-plugin-barn-owl",
    ]
    assert lines[lines.index("at work") + 1].startswith("python tests/tiny_checkpoint.py tiny-barn-owl")


def test_all_kinds_are_shown_with_a_line_each(new):
    code, out, _ = new("--kind", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == sorted(KINDS)


@pytest.mark.parametrize("name", ["two words", "x-", "café", "a/b", "../up", "", "vllm-plugin-", "x" * 60])
def test_a_name_that_no_package_can_have_is_refused_with_one_that_would_do(new, folder, name):
    code, out, err = new("--kind", "model", "--", name)
    assert (code, out) == (1, "")
    assert "cannot be the name of a package" in err
    suggested = err.rpartition("instead ")[2].strip()
    assert Names.parse(suggested).name == suggested
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("core", "vllm-core 0.1.0, which is installed, has it"),
        ("llama", "vllm-plugin-llama"),
        ("vllm-plugin-qwen", "vllm-plugin-qwen"),
        ("server", "vllm-plugin-server"),
        ("ngram-proposer", None),
    ],
)
def test_a_name_that_is_taken_is_refused_and_one_that_is_free_is_not(new, folder, name, why):
    code, _, err = new(name, "--kind", "model")
    if why is None:
        assert code == 0, err
        return
    assert code == 1
    assert "is taken.\n  why     " in err
    assert why in err
    assert f"instead my-{name.removeprefix('vllm-plugin-')}\n" in err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["3owls", "none", "true"])
def test_a_name_that_no_class_can_have_is_refused(new, name):
    code, _, err = new(name, "--kind", "model")
    assert code == 1
    assert f"instead my-{name}" in err


def test_the_prefix_of_distributions_may_be_written_or_not():
    for text in ("Snow_Owl", "vllm-plugin-snow-owl", "snow.owl"):
        names = Names.parse(text)
        made = (names.name, names.distribution, names.module, names.class_name)
        assert made == ("snow-owl", "vllm-plugin-snow-owl", "vllm_plugin_snow_owl", "SnowOwl")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("owl", "--kind", "modle"), 1, 'did you mean "model"?'),
        (("owl", "--kind", "pooler"), 1, "this version asks the hook pooler of nobody"),
        (("owl",), 2, "plugins new needs --kind, one of"),
        (("--kind", "model"), 2, "plugins new needs a name: vllm-core plugins new NAME --kind model"),
        (("owl", "--kind", "model", "--license", "GPL"), 2, "'GPL' is not known"),
        (("owl", "--kind", "model", "--author", 'A "B"'), 2, "no quotation marks"),
        (("owl", "--kind", "model", "--from-config", "nowhere"), 1, "there is no nowhere"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_written(new, folder, words, code, said):
    try:
        got, _, err = new(*words)
    except SystemExit as leaving:
        got, err = leaving.code, said
    assert got == code
    assert said in err
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(KINDS == ["model"], reason="models only")
def test_a_configuration_is_for_models_only(new, folder):
    other = next(kind for kind in KINDS if kind != "model")
    code, _, err = new("owl", "--kind", other, "--from-config", ".")
    assert code == 2
    assert f"it says nothing about a {other}" in err
    assert list(folder.iterdir()) == []


def test_a_folder_with_files_is_refused_and_force_keeps_what_it_replaces(new, folder):
    into = folder / "here"
    into.mkdir()
    into.joinpath("README.md").write_text("mine")
    into.joinpath("other.txt").write_text("mine, too")
    code, _, err = new("owlet", "--kind", "model", "--into", "here")
    assert code == 1
    assert "here is not empty" in err
    assert sorted(file.name for file in into.iterdir()) == ["README.md", "other.txt"]

    code, _, err = new("owlet", "--kind", "model", "--into", "here", "--force")
    assert code == 0
    assert err == "replaced here/README.md; what it was is in README.md.before\n"
    assert into.joinpath("README.md.before").read_text() == "mine"
    assert into.joinpath("other.txt").read_text() == "mine, too"
    assert into.joinpath("README.md").read_text().startswith("# vllm-plugin-owlet")

    into.joinpath("README.md").write_text("mine again")
    assert new("owlet", "--kind", "model", "--into", "here", "--force")[0] == 0
    assert into.joinpath("README.md.before2").read_text() == "mine again"


def test_a_file_in_the_way_is_refused(new, folder):
    folder.joinpath("taken").write_text("")
    assert new("owlet", "--kind", "model", "--into", "taken", "--force")[0] == 1


@pytest.mark.parametrize(
    ("license", "first", "named"),
    [
        ("Apache-2.0", "Apache License", "Apache-2.0"),
        ("MIT", "MIT License", "MIT"),
        ("BSD-3-Clause", "BSD 3-Clause License", "BSD-3-Clause"),
        ("Proprietary", "Copyright (c)", "LicenseRef-Proprietary"),
    ],
)
def test_a_licence_is_chosen_and_names_its_holder(new, folder, license, first, named):
    new("owlet", "--kind", "model", "--license", license, "--author", "Ada <ada@example.org>")
    made = folder / "vllm-plugin-owlet"
    text = made.joinpath("LICENSE").read_text()
    assert text.lstrip().startswith(first)
    assert "Ada <ada@example.org>" in text
    project = tomllib.loads(made.joinpath("pyproject.toml").read_text())["project"]
    assert project["license"] == named
    assert project["authors"] == [{"name": "Ada <ada@example.org>"}]


def test_it_needs_neither_git_nor_a_network(folder):
    code = (
        "import socket\n"
        "def never(*a, **k): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = never\n"
        "from vllm_core.cli import main\n"
        "raise SystemExit(main(['plugins', 'new', 'owlet', '--kind', 'model']))"
    )
    environ = {**os.environ, "PATH": "/nowhere", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert folder.joinpath("vllm-plugin-owlet", "pyproject.toml").is_file()


def test_without_its_library_it_names_the_extra_to_install(new, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "copier", None)
    code, _, err = new("owlet", "--kind", "model")
    assert code == 1
    assert 'pip install "vllm-core[sdk]"' in err
    assert list(folder.iterdir()) == []
    extras = core().pyproject["project"]["optional-dependencies"]["sdk"]
    assert any(one.startswith("copier") for one in extras)


def test_light_commands_do_not_import_what_renders(folder):
    code = (
        "import sys, vllm_core.cli as c; c.main(['plugins', 'new', '--kind', 'list']); c.main(['plugins']);"
        "sys.exit(bool({'copier', 'jinja2', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_wheel_has_the_template(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    build = core().pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["sources"] == {"plugin_template": "vllm_core/_plugin_template"}
    builder = WheelBuilder(str(ROOT))
    held = {file.distribution_path for file in builder.recurse_included_files()}
    template = ROOT / "plugin_template"
    wanted = {
        f"vllm_core/_plugin_template/{file.relative_to(template)}" for file in template.rglob("*") if file.is_file()
    }
    assert wanted <= held
    assert "vllm_core/plugin.py" in held


def test_a_checkpoint_without_an_architecture_is_refused(new, folder):
    folder.joinpath("config.json").write_text(json.dumps({"model_type": "x"}))
    code, _, err = new("owlet", "--kind", "model", "--from-config", "config.json")
    assert code == 1
    assert 'does not say "architectures"' in err
    with pytest.raises(PluginError, match="cannot name a class"):
        Names.parse("none")
