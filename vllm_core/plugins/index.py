"""Which distribution offers what, for "pip install ..." lines in errors. ``index.json`` is data of this package.

Regenerate after adding a first-party plugin: ``python -m vllm_core.plugins.index [FOLDER OF PLUGINS]``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path

__all__ = ["absent", "advice", "known_distributions", "lookup", "scan"]

_FILE = Path(__file__).with_name("index.json")


def lookup(kind: str, name: str) -> list[str]:
    """The distributions known to offer ``kind:name``."""
    return json.loads(_FILE.read_text()).get(f"{kind}:{name}", [])


def advice(kind: str, name: str, installed: Collection[str] = ()) -> str:
    """``"pip install x"`` for each distribution that offers it and is not installed, or ""."""
    return ", or ".join(f"pip install {found}" for found in lookup(kind, name) if found not in installed)


def known_distributions() -> set[str]:
    """All that the index names, installed or not."""
    return {owner for owners in json.loads(_FILE.read_text()).values() for owner in owners}


def absent(kind: str) -> list[str]:
    """The distributions known to offer something of this kind that are not installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    def installed(name: str) -> bool:
        try:
            return bool(distribution(name))
        except PackageNotFoundError:
            return False

    index = json.loads(_FILE.read_text())
    known = {name for key, owners in index.items() if key.startswith(f"{kind}:") for name in owners}
    return sorted(name for name in known if not installed(name))


def scan(plugins: Path) -> dict[str, list[str]]:
    """The index of a folder ``<kind>/<name>/pyproject.toml``. Fails if one of them does not pass the probe."""
    import tomllib

    from vllm_core.plugins.discovery import GROUP
    from vllm_core.plugins.probing import probe_all
    from vllm_core.plugins.records import Found, key_of
    from vllm_core.plugins.source import locate

    found = []
    before = list(sys.path)
    for file in sorted(plugins.glob("*/*/pyproject.toml")):
        project = tomllib.loads(file.read_text())["project"]
        sys.path.insert(0, str(file.parent))
        for name, module in project.get("entry-points", {}).get(GROUP, {}).items():
            found.append(
                Found(
                    name=name,
                    module=module,
                    distribution=project["name"],
                    version=str(project.get("version", "0")),
                    file=locate(module),
                )
            )
    try:
        results = probe_all(found, timeout=20.0, reprobe=True)
    finally:
        sys.path[:] = before
    index: dict[str, list[str]] = {}
    for plugin, probed in results.items():
        if probed.reason:
            raise SystemExit(f"{plugin.owner}: {probed.reason}")
        for hook, entries in probed.listings.items():
            for entry in entries if hook != "settings" else ():
                index.setdefault(":".join(key_of(hook, entry)), []).append(plugin.distribution)
    return {key: sorted(set(index[key])) for key in sorted(index)}


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path(__file__).parents[2] / "plugins"
    _FILE.write_text(json.dumps(scan(folder), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
