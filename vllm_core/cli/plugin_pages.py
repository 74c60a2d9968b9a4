"""What ``vllm-core plugins list`` and ``plugins show`` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vllm_core.hookspecs import ASKED
from vllm_core.plugins.lines import columns, labelled, one_line

if TYPE_CHECKING:
    from vllm_core.plugins.records import Offering, PluginStatus

__all__ = ["page", "table"]

_UNUSED = "not asked by this version"


def table(plugins: Sequence[PluginStatus], width: int | None) -> str:
    """A line for each plugin with its state, and below it what it offers and what would help.

    ``width`` in characters; None: lines as long as they are.
    """
    head = ("PLUGIN", "VERSION", "DISTRIBUTION")
    rows = [(p.name, p.version, p.distribution) for p in plugins]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
    lines = ["  ".join([*map(str.ljust, head, widths), "STATE"])]
    for plugin, row in zip(plugins, rows, strict=True):
        line = "  ".join(map(str.ljust, row, widths))
        state = _state(plugin)
        if width is None or len(line) + 2 + len(state) <= width:
            lines.append(f"{line}  {state}")
        else:
            lines += [f"{line}  {plugin.state}", *labelled("why", plugin.reason, width, indent=4)]
        if plugin.remedy and plugin.state == "quarantined":
            lines += labelled("remedy", plugin.remedy, width, indent=4)
        for said in plugin.deprecated:
            lines += labelled("goes", said, width, indent=4)
        if plugin.provides:
            lines += labelled("offers", ", ".join(map(_offer, plugin.provides)), width, indent=4)
    return "\n".join(lines)


def page(plugin: PluginStatus, settings: Sequence[Any]) -> str:
    """All that is known about one plugin; ``settings`` are its declarations."""
    from vllm_core.config.flags import flag_help

    width = columns()
    lines = [f"{plugin.name} {plugin.version}  ({plugin.distribution}, module {plugin.module})"]
    lines += labelled("state", _state(plugin), width)
    if plugin.remedy:
        lines += labelled("remedy", plugin.remedy, width)
    for offering in plugin.provides:
        off = f"[{offering.disabled}; {offering.remedy}]" if offering.disabled else ""
        unused = "" if offering.asked else f"[{_UNUSED}]"
        lines.append("  offers  " + "  ".join(filter(None, (str(offering), offering.summary, off, unused))))
    if plugin.hooks:
        lines += labelled("hooks", ", ".join(h if h in ASKED else f"{h} ({_UNUSED})" for h in plugin.hooks), width)
    for said in plugin.deprecated:
        lines += labelled("goes", said, width)
    for setting in settings:
        lines.append(f"  setting --plugin.{plugin.name}.{setting.flag[2:]}  {flag_help(setting)}")
    return "\n".join(lines)


def _state(plugin: PluginStatus) -> str:
    if plugin.state == "quarantined":
        return f"quarantined because {one_line(plugin.reason)}"
    return plugin.reason or plugin.state  # "disabled by block in ./vllm.toml"


def _offer(offering: Offering) -> str:
    note = "off" if offering.disabled else "" if offering.asked else _UNUSED
    return f"{offering} ({note})" if note else str(offering)
