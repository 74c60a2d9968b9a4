"""From what the user calls a model to a path on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from vllm_core.plugin import load_target
from vllm_core.weights.errors import CheckpointError
from vllm_core.weights.hub import HubError, download
from vllm_core.weights.mismatch import nearest

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(?P<file>/[\w./-]+\.\w+)?")

_FILE_SUFFIX = re.compile(r"\.[a-z]{3,}$")  # model names have dots, but before numbers


def locate(
    model: str,
    *,
    catalog: Any = None,
    revision: str | None = None,
    download_dir: str | None = None,
    weights: bool = True,
) -> Path:
    """A local folder or file, a bundled model, or a download from the Hub, tried in this order.

    weights   False: a download may leave the weights out
    """
    if not model:
        raise CheckpointError("no model was named: give a folder, a bundled model's name, or a Hub id")
    path = Path(model).expanduser()
    if path.exists():
        if revision is not None:
            raise CheckpointError(
                f"revision {revision!r} was asked for, but {path} is here already, and files have no revisions\n"
                "  instead leave the revision out"
            )
        return path
    tried = [f"path     {path.absolute()}: does not exist{_sibling(path)}"]
    bundled = {p.entry.name: p for p in catalog.entries("bundled_models")} if catalog is not None else {}
    hub_id = model
    if model in bundled:
        provided = catalog.find("bundled_models", model)
        found, why = _bundled(provided) if revision is None else (None, f"has no revision {revision!r}")
        if found is not None:
            return found
        tried.append(f"bundled  {provided.distribution} {provided.version}: {why}")
        hub_id = provided.entry.hub_id
        if not hub_id:
            raise _nothing(model, tried)
    else:
        close = nearest(model, bundled)
        tried.append(f"bundled  {', '.join(bundled) or 'no models'}{close}")
        if close and "/" not in model:  # offline, asking the Hub would take long to say nothing
            raise _nothing(model, [*tried, "Hub      not asked: ids there are ORG/NAME"])
    if not is_hub_id(hub_id, or_file=True):
        raise _nothing(model, [*tried, "Hub      not asked: this is no ORG/NAME"])
    try:
        return Path(download(hub_id, revision=revision, download_dir=download_dir, weights=weights))
    except HubError as e:
        raise _nothing(model, [*tried, f"Hub      {hub_id}: {e}"]) from e


def _sibling(path: Path) -> str:
    """What lies beside a missing path under nearly its name."""
    try:
        return nearest(path.name, os.listdir(path.parent))
    except OSError:
        return ""


def is_hub_id(name: str, *, or_file: bool = False) -> bool:
    """Whether it may be a repository on the Hub; with ``or_file``, or one file of a repository."""
    found = _HUB_ID.fullmatch(name)
    if found is None or ".." in name:
        return False
    return or_file if found["file"] else _FILE_SUFFIX.search(name) is None


def _bundled(provided: Any) -> tuple[Path | None, str]:
    """Its path, or why there is none."""
    try:
        return Path(load_target(provided.entry.target)()), ""
    except FileNotFoundError as e:
        return None, str(e)
    except Exception as e:
        raise CheckpointError(
            f'the bundled model "{provided.entry.name}" cannot be located\n'
            f"  by   {provided.distribution} {provided.version}\n"
            f"  why  {type(e).__name__}: {e}"
        ) from e


def _nothing(model: str, tried: list[str]) -> CheckpointError:
    return CheckpointError(f'the model "{model}" was not found; tried in this order\n  ' + "\n  ".join(tried))
