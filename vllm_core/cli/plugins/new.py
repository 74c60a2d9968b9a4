"""``vllm-core plugins new NAME --kind KIND``: a package that is installed, found and tested at once."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import tomllib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_core.cli.errors import UsageError
from vllm_core.cli.template.kinds import Kind, find_kind, kinds
from vllm_core.cli.template.names import Names, refuse_taken
from vllm_core.cli.template.render import check_library, check_target, place, render, render_text

if TYPE_CHECKING:
    from vllm_core.cli.template.render import Placed

__all__ = ["New"]

LICENSES = ("Apache-2.0", "MIT", "BSD-3-Clause", "Proprietary")


class New:
    """Renders the template of a kind, offline, and says what to do next."""

    about = (
        "Begins a plugin: a package of the kind that you name, with a small implementation that works, tests that "
        "pass, a README, a licence and a workflow for CI. Nothing is fetched, and nothing is overwritten."
    )
    examples = (
        ("plugins new --kind list", "every kind, a line each"),
        ("plugins new owl --kind tool-parser", "in ./vllm-plugin-owl"),
        ("plugins new owl --kind model --from-config ./owl-7b", "with the fields and tensors of a checkpoint"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME", help="of the plugin; its package is vllm-plugin-NAME")
        parser.add_argument("--kind", metavar="KIND", help="what it will offer; --kind list shows all kinds")
        parser.add_argument("--into", metavar="FOLDER", help="default: ./vllm-plugin-NAME")
        parser.add_argument("--license", choices=LICENSES, default=LICENSES[0], help=f"default: {LICENSES[0]}")
        parser.add_argument("--author", metavar="TEXT", help='who holds the copyright; default: "the authors of NAME"')
        parser.add_argument(
            "--from-config",
            metavar="PATH",
            help="a config.json or the folder of a checkpoint, for --kind model: its architecture, fields and tensors",
        )
        parser.add_argument(
            "--force", action="store_true", help="also into a folder with files: those replaced are kept and named"
        )

    def run(self, args: argparse.Namespace) -> int:
        if args.kind == "list":
            print(_table(kinds()))
            return 0
        if args.kind is None:
            raise UsageError(f"plugins new needs --kind, one of {', '.join(kinds())}; --kind list tells what they are")
        kind = find_kind(args.kind)
        if args.name is None:
            raise UsageError(f"plugins new needs a name: vllm-core plugins new NAME --kind {kind.name}")
        if args.from_config and kind.name != "model":
            raise UsageError(f"--from-config reads the configuration of a model; it says nothing about a {kind.name}")
        names = Names.parse(args.name)
        folder = Path(args.into or names.distribution)
        check_target(folder, args.force)
        _refuse_taken(names, kind, folder)
        check_library()
        data = _answers(args, names, kind)
        with tempfile.TemporaryDirectory() as scratch:
            render(kind, data, Path(scratch))
            placed = place(Path(scratch), folder)
        _tell(names, kind, folder, placed, data)
        return 0


def _refuse_taken(names: Names, kind: Kind, folder: Path) -> None:
    from vllm_core.plugins import load_catalog

    project = folder / "pyproject.toml"
    if project.is_file():  # with --force; what is rendered again may be installed from here
        named = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("name")
        if named == names.distribution:
            return
    refuse_taken(names, kind, load_catalog(import_modules=False))


def _answers(args: argparse.Namespace, names: Names, kind: Kind) -> dict[str, Any]:
    """The variables of the template."""
    from vllm_core import __version__
    from vllm_core.plugin import HOOK_API

    data: dict[str, Any] = {
        "name": names.name,
        "distribution": names.distribution,
        "module": names.module,
        "class_name": names.class_name,
        "kind": kind.name,
        "hook": kind.hook,
        "hook_api": HOOK_API,
        "core_version": __version__,
        "core_range": _range(__version__),
        "license": args.license,
        "author": args.author or f"the authors of {names.distribution}",
        "year": date.today().year,
        "about": kind.about,
        "dependencies": list(kind.dependencies),
        "test_dependencies": list(kind.test_dependencies),
    }
    if any(letter in data["author"] for letter in '"\\\n'):
        raise UsageError(
            f"--author goes into pyproject.toml: no quotation marks and no backslashes, not {args.author!r}"
        )
    data["use"] = render_text(kind.use, data)
    if kind.name == "model":
        data.update(_model(names, args.from_config))
    return data


def _model(names: Names, given: str | None) -> dict[str, Any]:
    """What a configuration says, or a plain decoder."""
    from vllm_core.cli.template.model import model_data

    if given is None:
        return model_data(names.class_name, None, None)
    from vllm_core.cli.template.reference import consult
    from vllm_core.cli.template.source import read_source

    source = read_source(given)
    return model_data(names.class_name, source, consult(source.config))


def _range(version: str) -> str:
    """Versions of the core that should do: from this minor version to the next."""
    major, minor = version.split(".")[:2]
    return f">={major}.{minor},<{major}.{int(minor) + 1}"


def _table(found: dict[str, Kind]) -> str:
    width = max(map(len, found)) + 2
    return "\n".join(f"{name:<{width}}{kind.about}" for name, kind in found.items())


def _tell(names: Names, kind: Kind, folder: Path, placed: Placed, data: dict[str, Any]) -> None:
    print(f"{names.distribution}: {len(placed.files)} files of a {kind.name} plugin in {folder}")
    for file, kept in placed.replaced.items():
        print(f"replaced {file}; what it was is in {kept.name}", file=sys.stderr)
    print(
        f"\nnext\n  cd {shlex.quote(str(folder))} && pip install -e '.[test]'\n  pytest\n"
        f"  vllm-core plugins check {names.distribution}\n\nat work\n  {data['use']}"
    )
    for line in _left_open(data):
        print(line)


def _left_open(data: dict[str, Any]) -> list[str]:
    """What ``--from-config`` could not tell, in a few lines; NOTES.md has all of it."""
    if not data.get("from_config"):
        return []
    found = []
    if not data["in_transformers"]:
        found.append(f"transformers has no {data['architecture']} for this configuration: nothing was compared")
    found += data["notes"]
    if data["uncovered"]:
        found.append(f"tensors without a rule: {_some(data['uncovered'])}")
    if data["matter"]:
        found.append(f"fields that matter and are not read: {_some([name for name, *_ in data['matter']])}")
    if data["untried"]:
        found.append(f"fields whose effect is not known: {_some([name for name, *_ in data['untried']])}")
    if not found:
        return ["", "everything in the configuration has a place; pytest says whether the arithmetic is right"]
    return ["", "not told by the configuration (NOTES.md)", *(f"  {line}" for line in found)]


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
