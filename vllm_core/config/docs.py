"""Write docs/settings.md and docs/hooks.md from the declarations: ``python -m vllm_core.config.docs [FOLDER]``."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from vllm_core.config.declared import Declared, declared
from vllm_core.config.engine import EngineSettings
from vllm_core.config.vllm_names import vllm_names
from vllm_core.hookspecs import GROUPS
from vllm_core.hookspecs.reading import Specification, read_hook

__all__ = ["hooks_page", "pages", "settings_page"]

_MADE = "<!-- Made by `make docs`; change the declarations instead. -->"
_SETTINGS = """# Settings

Each setting is declared once. `max_model_len`, for example, is

- a flag: `--max-model-len 4096` (a switch is `--async-scheduling` or `--no-async-scheduling`, a table is JSON,
  a list is JSON or `a,b`, a number of bytes may be `2GiB`, `none` is no value),
- an environment variable: `VLLM_CORE_MAX_MODEL_LEN=4096`,
- a key of the table `[engine]` in `./vllm.toml`, in `$XDG_CONFIG_HOME/vllm-core/vllm.toml`, or in the file given
  with `--config` (TOML or YAML), which is then read instead of the two,
- an argument: `LLM("MODEL", max_model_len=4096)`, which reads neither files nor the environment.

A flag goes before the environment, that before `./vllm.toml`, that before the file in `$XDG_CONFIG_HOME`. An unknown
name is an error with the nearest match, and every error says where the value stood.

A plugin's own settings stand in `[plugin.NAME]`, or as `--plugin.NAME.KEY VALUE`; `vllm-core plugins show NAME` lists
them. `[plugins]` says which plugins may be used: `allow`, `block`, `require`, `prefer`.
"""
_HOOKS = """# Hooks

Every extension point of vllm-core. A plugin is a module named by an entry point of the group `vllm_core.plugins`,
with the literal `HOOK_API = 1` and functions marked `@hookimpl`, named after the hooks they answer. An implementation
declares only the arguments it uses. A contract is a protocol in `vllm_core/interfaces/`, or a record of
`vllm_core.plugin`.

A hook marked *provisional* has fewer than two implementations so far and may still change. One that is *not asked by
this version* can be implemented already; `vllm-core plugins list` says so beside what a plugin offers through it.

Hooks with a query are asked in a thread of their own. One that has not answered after `answer_timeout_s` (20, a key of
`[plugins]` in vllm.toml) ends the start, naming the plugin.
"""


def settings_page() -> str:
    """docs/settings.md."""
    parts = [_MADE, _SETTINGS]
    for group, settings in groupby(declared(EngineSettings).values(), key=lambda s: s.group):
        rows = [f"| `{s.flag}` | {s.shown_type} | {_default(s)} | {_cell(_meaning(s))} |" for s in settings]
        parts.append(
            "\n".join([f"## {group.capitalize()}\n", "| flag | type | default | meaning |", "|---|---|---|---|", *rows])
        )
    rows = [f"| `{name}` | {_cell(note)} |" for name, note in sorted(vllm_names().items())]
    parts.append("\n".join(["## vLLM's arguments that we lack", "", "| vLLM | here |", "|---|---|", *rows]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def hooks_page() -> str:
    """docs/hooks.md."""
    parts = [_MADE, _HOOKS]
    for group, names in GROUPS.items():
        parts.append(f"## {group.capitalize()}")
        parts += [_hook(read_hook(name)) for name in names]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def pages() -> dict[str, str]:
    """File name below docs/: content."""
    return {"settings.md": settings_page(), "hooks.md": hooks_page()}


def _hook(hook: Specification) -> str:
    mark = " *(provisional)*" if hook.info.provisional else ""
    unused = "" if hook.info.asked else " *Not asked by this version.*"
    asked = f"`interfaces.queries.{hook.query}`. {hook.sections['query']}" if hook.query else "none"
    contracts = ", ".join(f"`{name}`" for name in hook.contracts)
    lines = [f"### {hook.info.name}{mark}", "", hook.summary + unused, "", f"- **Contract** {contracts}"]
    lines += [f"- **Deprecated** {said}." for said in hook.deprecated]
    for heading, text in hook.sections.items():
        text = asked if heading == "query" else text
        lines.append(f"- **{heading[0].upper()}{heading[1:]}** {text.replace('``', '`')}")
    return "\n".join(lines)


def _meaning(setting: Declared) -> str:
    choices = f"One of {', '.join(map(str, setting.choices))}." if setting.choices else ""
    unit = f"In {setting.unit}." if setting.unit else ""
    return " ".join(part for part in (setting.help, choices, unit, setting.trade) if part)


def _default(setting: Declared) -> str:
    return "" if setting.default in (None, "", {}, []) else f"`{setting.shown_default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parents[2] / "docs"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
