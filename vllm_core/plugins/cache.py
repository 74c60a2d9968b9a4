"""Results of probing, kept between starts, so that the second start needs no child.

One JSON file in ``$XDG_CACHE_HOME/vllm-core``. A key names everything a result depends on; a failure
may also come from a missing dependency, so it is kept only while the same distributions are installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vllm_core import __version__
from vllm_core.plugins.records import Found, Probed

__all__ = ["load", "store"]

_MOST = 2000  # results kept, the newest first


def _file() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "vllm-core" / "probed-plugins.json"


def _core_stamp() -> int:
    """Changes when the hooks, the records or the checks of a core under development do."""
    here = Path(__file__).parent
    files = [
        here / "probe.py",
        here / "records.py",
        here.parent / "plugin.py",
        *(here.parent / "hookspecs").glob("*.py"),
    ]
    return max(file.stat().st_mtime_ns for file in files)


def _key(plugin: Found, core_stamp: int) -> str:
    stat = os.stat(plugin.file)
    parts = (
        plugin.name, plugin.module, plugin.distribution, plugin.version, plugin.stamp,
        plugin.file, stat.st_size, stat.st_mtime_ns, __version__, core_stamp, sys.version,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _installed() -> str:
    """A digest of the distributions on ``sys.path``, from the names of their metadata folders."""
    digest = hashlib.sha256()
    for entry in sys.path:
        try:
            names = sorted(n for n in os.listdir(entry or ".") if n.endswith((".dist-info", ".egg-info", ".pth")))
        except OSError:
            continue
        digest.update(repr(names).encode())
    return digest.hexdigest()


def load(plugins: Iterable[Found]) -> dict[Found, Probed]:
    """The kept results of those plugins that have not changed."""
    rows = _read()
    found: dict[Found, Probed] = {}
    installed, core = "", _core_stamp()
    for plugin in plugins:
        row = rows.get(_key(plugin, core)) if plugin.file else None
        if not isinstance(row, dict):
            continue
        if row.get("reason"):
            installed = installed or _installed()
            if row.get("installed") != installed:
                continue
        try:
            found[plugin] = Probed.from_plain(row)
        except (TypeError, ValueError, KeyError, AttributeError):
            continue  # damaged, or written by hand
    return found


def store(results: Mapping[Found, Probed]) -> None:
    """Add results. A cache that cannot be written costs time and nothing else."""
    installed, core = _installed(), _core_stamp()
    rows = _read()
    for plugin, probed in results.items():
        key = _key(plugin, core)
        rows.pop(key, None)  # so that it moves to the end
        rows[key] = {**probed.plain(), "installed": installed}
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(dict(list(rows.items())[-_MOST:])))
        part.replace(path)
    except OSError:
        return


def _read() -> dict[str, Any]:
    try:
        rows = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return rows if isinstance(rows, dict) else {}
