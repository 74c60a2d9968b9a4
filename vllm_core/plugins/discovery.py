"""Which plugins are installed: entry points of the group ``vllm_core.plugins``. Imports none of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import importlib_metadata

from vllm_core import __version__
from vllm_core.plugins.lines import printable
from vllm_core.plugins.records import CORE, Found
from vllm_core.plugins.source import locate

__all__ = ["GROUP", "canonical", "discover"]

GROUP = "vllm_core.plugins"
_BUILTIN = "vllm_core.builtin"


def canonical(distribution: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def discover() -> list[Found]:
    """The core's own offers first, then every entry point, by name and distribution."""
    found = [_found(point) for point in importlib_metadata.entry_points(group=GROUP)]
    found.sort(key=lambda f: (f.name, f.distribution))
    builtin = locate(_BUILTIN)
    if builtin:
        core = Found(name=CORE, module=_BUILTIN, distribution="vllm-core", version=__version__, file=builtin)
        found.insert(0, core)
    return found


def _found(point: importlib_metadata.EntryPoint) -> Found:
    dist = point.dist
    metadata = (dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "") if dist else ""
    # Headers are read by hand: the email parser costs about 1 ms a distribution.
    fields = dict(_headers(metadata, ("name", "version")))
    return Found(
        name=printable(point.name),
        module=point.value.split(":")[0].strip(),
        distribution=printable(canonical(fields.get("name", "unknown"))),
        version=printable(fields.get("version", "unknown")),
        requires=tuple(value for _, value in _headers(metadata, ("requires-dist",))),
        stamp=_stamp(dist),
        file=locate(point.value.split(":")[0].strip()),
    )


def _headers(metadata: str, names: Iterable[str]) -> list[tuple[str, str]]:
    found = []
    for line in metadata.splitlines():
        if not line:
            break
        key, colon, value = line.partition(":")
        if colon and key.lower() in names:
            found.append((key.lower(), value.strip()))
    return found


def _stamp(dist: object) -> int:
    path = getattr(dist, "_path", None)  # the *.dist-info folder of a distribution on disk
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return 0
