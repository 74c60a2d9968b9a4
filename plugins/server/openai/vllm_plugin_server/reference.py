"""Writes docs/server.md of this package from its declarations: ``python -m vllm_plugin_server.reference [FILE]``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import attrs

import vllm_plugin_server
from vllm_plugin_server.ignored import IGNORED
from vllm_plugin_server.limits import LIMITS
from vllm_plugin_server.settings import ServerSettings

__all__ = ["page"]

_HEAD = """<!-- Made by python -m vllm_plugin_server.reference; change the declarations instead. -->

# The server: routes, settings, limits

Every setting is a flag of `vllm-core serve`, a key of `[plugin.server]` in vllm.toml or a file given with `--config`
(TOML or YAML), and a variable: `--max-concurrent-requests 64`, `max_concurrent_requests = 64`,
`VLLM_CORE_SERVER_MAX_CONCURRENT_REQUESTS=64`. A flag goes before a variable, that before a file. A list may be given
several times, or as `a,b`. The engine's own settings (docs/settings.md) are flags of `serve`, too.
"""
_LIMITS = """## Limits

One table, applied to every route: to bytes before they are parsed, and to the parsed request. What is beyond gets 400,
a body 413, headers 431, a client that is too slow 408 or no answer.
"""
_IGNORED = """## Fields without effect

They are accepted, because clients send them, and change nothing. An answer names those of its request in the header
`x-vllm-core-ignored`. Any other name that is not in a route's schema (`/openapi.json`, `/docs`) is a 400 with the
nearest one, unless `--lenient-requests` says otherwise.
"""


def page() -> str:
    """The whole of docs/server.md."""
    for endpoint in vllm_plugin_server.http_endpoints():  # each adds what it ignores
        importlib.import_module(endpoint.target.partition(":")[0])
    parts = [_HEAD, "## Routes\n\n" + _table(("method", "path", "what"), _routes()), "## Settings"]
    parts += [
        f"### {group[:1].upper()}{group[1:]}\n\n" + _table(("flag", "default", "meaning"), rows)
        for group, rows in _settings()
    ]
    parts += [_LIMITS + "\n" + _table(("limit", "at most", "of"), _limits())]
    parts += [_IGNORED] + [
        f"### `{route}`\n\n" + _table(("field", "why"), [(f"`{name}`", why) for name, why in table.items()])
        for route, table in sorted(IGNORED.items())
        if table
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _routes() -> Iterable[tuple[str, ...]]:
    for endpoint in vllm_plugin_server.http_endpoints():
        yield ", ".join(endpoint.methods), f"`{endpoint.path}`", endpoint.summary


def _settings() -> Iterable[tuple[str, list[tuple[str, ...]]]]:
    declared = [(field, field.metadata["setting"]) for field in attrs.fields(ServerSettings)]
    for group, fields in groupby(declared, key=lambda pair: pair[1]["group"]):
        yield group, [(f"`--{f.name.replace('_', '-')}`", _default(f), _meaning(meta)) for f, meta in fields]


def _default(field: attrs.Attribute) -> str:
    value = field.default
    value = value.factory() if isinstance(value, attrs.Factory) else value  # type: ignore[arg-type]
    shown = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    return "" if value in (None, "", []) else f"`{','.join(shown) if isinstance(shown, list) else shown}`"


def _meaning(meta: dict) -> str:
    choices = f"One of {', '.join(map(str, meta['choices']))}." if meta["choices"] else ""
    unit = f"In {meta['unit']}." if meta["unit"] else ""
    return " ".join(part for part in (meta["help"], choices, unit, meta["trade"]) if part)


def _limits() -> Iterable[tuple[str, ...]]:
    for limit in LIMITS.values():
        least = "" if limit.least is None else f"{'above ' * limit.above}{limit.least:,g} to "
        yield f"`{limit.name}`", f"{least}{limit.most:,.10g} {limit.unit}".strip(), limit.what


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


def main(arguments: list[str]) -> int:
    file = Path(arguments[0]) if arguments else Path(__file__).parents[1] / "docs" / "server.md"
    file.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
