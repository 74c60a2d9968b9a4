"""A package from the template: copier renders what all kinds share, then the kind, and the result is put in place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from vllm_core.cli.template.kinds import COMMON, Kind, template_folder
from vllm_core.plugins.errors import PluginError

__all__ = ["Placed", "check_library", "check_target", "place", "render", "render_text"]

ABOUT = "ABOUT.md"
"""A kind's part of the README."""

NOT_RENDERED = ("copier.yml", "kind.toml", "__pycache__", "*.pyc", ".git", ".DS_Store")


def check_library() -> None:
    """`PluginError` unless what renders is installed."""
    if find_spec("copier") is None:
        raise PluginError(
            "plugins new renders its template with copier, which is not installed.",
            install='pip install "vllm-core[sdk]"',
        )


def check_target(folder: Path, force: bool) -> None:
    """`PluginError` unless the folder is free, or ``force`` allows files to be put beside others."""
    if folder.exists() and not folder.is_dir():
        raise PluginError(f"{folder} is a file.", instead="--into ANOTHER")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise PluginError(
            f"{folder} is not empty.",
            instead=["--into ANOTHER", "--force keeps each file it replaces, as FILE.before, and says which"],
        )


def render(kind: Kind, data: Mapping[str, Any], into: Path) -> None:
    """The whole package, in the empty folder ``into``."""
    with tempfile.TemporaryDirectory() as scratch:
        own, shared = Path(scratch, "kind"), Path(scratch, COMMON)
        _copy(kind.folder, own, data)
        about = own / ABOUT
        if not about.is_file():
            raise PluginError(f"{kind.folder} lacks {ABOUT}.jinja: the middle of the README")
        text = about.read_text(encoding="utf-8").strip()
        about.unlink()
        _copy(template_folder() / COMMON, shared, {**data, "about_text": text})
        shutil.copytree(shared, into, dirs_exist_ok=True)
        shutil.copytree(own, into, dirs_exist_ok=True)


def render_text(text: str, data: Mapping[str, Any]) -> str:
    """One line, with the same variables."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined).from_string(text).render(data)


@attrs.frozen
class Placed:
    """What came to lie in a folder; ``replaced`` maps a file to where its old content is."""

    files: list[Path]
    replaced: dict[Path, Path]


def place(made: Path, folder: Path) -> Placed:
    """Move the files of ``made`` to ``folder``. A file that is there with other content is kept beside."""
    files, replaced = [], {}
    for file in sorted(path for path in made.rglob("*") if path.is_file()):
        target = folder / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.read_bytes() != file.read_bytes():
            replaced[target] = target.rename(_free(target))
        shutil.copyfile(file, target)
        files.append(target)
    return Placed(files, replaced)


def _copy(template: Path, into: Path, data: Mapping[str, Any]) -> None:
    from copier import run_copy

    run_copy(
        str(template),
        str(into),
        data=dict(data),
        exclude=NOT_RENDERED,
        defaults=True,
        overwrite=True,
        quiet=True,
        skip_tasks=True,
    )


def _free(target: Path) -> Path:
    """``FILE.before``, or with a number behind it if that is there."""
    for n in range(1, 1000):
        kept = target.with_name(f"{target.name}.before{n if n > 1 else ''}")
        if not kept.exists():
            return kept
    raise PluginError(f"{target} was kept a thousand times already.", instead="--into ANOTHER")
