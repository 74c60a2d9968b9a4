"""Every package works beside the core and what it declares, and nothing else: no package secretly needs another.

A package whose smallest use takes more than the name of what it offers says so in its pyproject.toml, with ``{model}``
for the folder of a tiny checkpoint::

    [tool.vllm-core.smallest-use]
    speculative_config = {method = "...", model = "{model}", num_speculative_tokens = 2}

or leaves the table empty where nothing that it offers suits such a checkpoint. Other packages that only its tests
need are declared there, too::

    [dependency-groups]
    test = ["vllm-plugin-..."]
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.packages import ROOT
from tests.third_party.owl_oracle import save_owl

HERE = Path(__file__).parent
# Settings that ask for what a plugin offers, by kind; the others are taken where they fit.
ASKED = {
    "attention_backend": lambda name: {"attention_backend": name},
    "quantization_method": lambda name: {"quantization": name},
    "draft_proposer": lambda name: {"speculative_config": {"method": name, "num_speculative_tokens": 2}},
    "grammar_backend": lambda name: {"structured_outputs_config": {"backend": name}},
}
WALK = """
import importlib, importlib.util, json, pkgutil, sys
missing = {}
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.module_finder.find_spec(module.name).origin.endswith(".py"):
            continue  # a library of kernels has the suffix of a module, and need not be one
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missing[module.name] = error.name
print(json.dumps(missing))
"""


@pytest.fixture(scope="module")
def plugins(alone):
    """What ``vllm-core plugins list`` shows beside the core: name -> row."""
    listed = alone.run("vllm-core", "plugins", "list", "--json")
    assert (listed.code, listed.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(listed.out)}
    assert rows.pop("core")["distribution"] == "vllm-core"
    if alone.stranger:
        assert rows.pop("owl")["state"] == "active"
    return rows


@pytest.fixture(scope="module")
def offers(alone, plugins):
    """What the package itself provides: [(kind, name)]."""
    return [(o["kind"], o["name"]) for name in alone.package.entry_points for o in plugins[name]["provides"]]


def test_its_wheel_holds_every_file_of_the_package_and_no_tests(alone):
    there = {
        str(file.relative_to(alone.package.folder))
        for module in alone.package.modules
        for file in alone.package.folder.joinpath(module).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert there
    in_wheel = {name for name in alone.files if ".dist-info/" not in name}
    assert in_wheel == there
    assert not [name for name in in_wheel if "tests" in Path(name).parts]


def test_nothing_but_what_is_declared_is_installed(alone):
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    there = {canonicalize_name(name) for name in alone.run("python", "-c", code).out.split()}
    ours = {"vllm-core", *(one.distribution for one in (alone.package, *alone.beside))}
    assert there == alone.libraries | ours | ({"vllm-plugin-owl"} if alone.stranger else set())


def test_it_is_found_active_and_shown(alone, plugins, offers):
    expected = {name for one in (alone.package, *alone.beside) for name in one.entry_points}
    assert set(plugins) == expected
    assert expected
    assert {name: row["reason"] for name, row in plugins.items() if row["state"] != "active"} == {}
    assert offers, "it provides nothing"
    for name in alone.package.entry_points:
        shown = alone.run("vllm-core", "plugins", "show", name)
        assert (shown.code, shown.err) == (0, "")
        assert all(offer in shown.out for _, offer in offers)


def test_every_module_of_it_imports_with_what_it_declares(alone):
    done = alone.run("python", "-c", WALK, *alone.package.modules)
    assert done.code == 0, done.err
    missing = json.loads(done.out.splitlines()[-1])
    installed_here = {module: name for module, name in missing.items() if _importable(name)}
    assert not installed_here, f"{alone.package.distribution} imports what it does not declare"
    if missing:
        pytest.skip(f"not installed on this machine: {', '.join(sorted(set(missing.values())))}")


def test_it_explains_and_generates(alone, plugins, offers, tmp_path):
    """A model from a tiny checkpoint; whatever else is used, or stays out of the way, under a stranger's model."""
    if any(kind == "model" for kind, _ in offers):
        work, used = _models(alone, plugins, tmp_path), "model"
    else:
        work, used = _stranger(alone, offers, tmp_path)
    done = alone.run("python", HERE / "generate.py", json.dumps(work))
    assert done.code == 0, done.err[-3000:]
    results = list(zip(work, json.loads(done.out.splitlines()[-1]), strict=True))
    refused = [got["refused"] for _, got in results if "refused" in got]
    # Of several offers some may be for checkpoints of their own; these say so themselves.
    assert len(refused) < len(results), refused
    assert all(f"by      {alone.package.distribution} " in reason for reason in refused), refused
    for (folder, arguments), got in results:
        if "refused" in got:
            continue
        assert len(got["tokens"]) == 8, folder
        if used:
            owners = got["owners"].get(used, [])
            assert alone.package.distribution in owners, f"{arguments or folder}: {used} is of {owners}"


@pytest.mark.slow
def test_its_own_tests_pass(alone):
    done = alone.run(
        *("python", "-m", "pytest", "-x", "-q", "-rs", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"),
        alone.package.folder / "tests",
        seconds=900,
        PYTHONPATH=str(alone.testing),
    )
    advice = "a package that only its tests need is declared in pyproject.toml: [dependency-groups] test = [...]"
    assert done.code == 0, f"{done.out[-6000:]}{done.err[-2000:]}\n{advice}"
    print(done.out[-2000:])  # what was skipped, and why


def _models(alone, plugins, folder):
    """A checkpoint of every architecture; made by the plugin's own conformance tests."""
    script = (HERE / "tiny_checkpoints.py", alone.package.folder / "tests", folder)
    made = alone.run("python", *script, PYTHONPATH=str(alone.testing))
    assert made.code == 0, made.err[-3000:]
    checkpoints = json.loads(made.out.splitlines()[-1])
    rows = [plugins[name] for name in alone.package.entry_points]
    listed = {o["name"] for row in rows if "models" in row["hooks"] for o in row["provides"] if o["kind"] == "model"}
    assert listed <= set(checkpoints), "an architecture has no conformance tests"
    assert checkpoints
    return [[checkpoint, {}] for checkpoint in checkpoints.values()]


def _stranger(alone, offers, folder):
    """The strange model, once with each offer that a setting can ask for; the hook that must have chosen it."""
    save_owl(folder)
    given = alone.package.pyproject.get("tool", {}).get("vllm-core", {}).get("smallest-use")
    if given is not None:
        arguments = json.loads(json.dumps(given).replace("{model}", str(folder)))
        kind = next((kind for kind, _ in offers if kind in ASKED and arguments), None)
        return [[str(folder), arguments]], kind
    asked = [(kind, ASKED[kind](name)) for kind, name in offers if kind in ASKED]
    if not asked:
        return [[str(folder), {}]], None
    return [[str(folder), arguments] for _, arguments in asked], asked[0][0]


def _importable(name):
    from importlib.util import find_spec

    return find_spec(name.partition(".")[0]) is not None
