"""Which commands there are: the core's, and those that plugins list through ``cli_commands``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from vllm_core.cli.parser import Parser
from vllm_core.plugin import Command, load_target
from vllm_core.plugins.errors import NoOffer, did_you_mean

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog

__all__ = ["CORE", "UnknownCommand", "overview", "run"]


class UnknownCommand(NoOffer):
    """Neither the core nor an active plugin has this command."""


CORE = {
    command.name: command
    for command in (
        Command("complete", "vllm_core.cli.complete:Complete", "continue a text"),
        Command("chat", "vllm_core.cli.chat:Chat", "answer a message, or talk"),
        Command("explain", "vllm_core.cli.explain:Explain", "show who would serve a model, and why"),
        Command("doctor", "vllm_core.cli.doctor:Doctor", "check this machine, and whether a model would start"),
        Command("plugins", "vllm_core.cli.plugins:Plugins", "list plugins, show one, begin a new one"),
        Command("bench", "vllm_core.cli.bench:Bench", "measure speed: throughput, latency, start-up"),
    )
}


INSTEAD = {
    "run-batch": "not built yet: the server. LLM.generate takes a list of prompts; vllm-core complete takes several",
    "collect-env": "vllm-core doctor",
}
"""vLLM's commands that nobody offers yet."""


def overview() -> str:
    """What ``vllm-core --help`` prints."""
    commands = dict(CORE)
    note = ""
    try:
        catalog = _catalog()
        for provided in catalog.entries("cli_commands"):
            group, _, inner = provided.entry.name.partition(" ")
            if not (inner and group in commands):  # a group's help shows what joined it
                commands.setdefault(provided.entry.name, provided.entry)
        if here := catalog.names("bundled_model"):
            note = f"\nmodels that come with plugins: {', '.join(here)}\n"
    except Exception as error:  # help must work above all when the configuration does not
        note = f"\nPlugins' commands are missing here: {error}\n"
    return (
        "usage: vllm-core COMMAND ...\n\n"
        "Serve language models; every feature is a plugin.\n\n"
        f"commands:\n{_rows(commands)}\n{note}\n"
        "vllm-core COMMAND --help shows a command's arguments, vllm-core --version the version.\n"
        "Settings: flags, VLLM_CORE_* in the environment, ./vllm.toml (see docs/settings.md)."
    )


def _rows(commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands)) + 2
    return "\n".join(f"  {name:<{width}}{command.summary}" for name, command in commands.items())


def run(name: str, words: Sequence[str]) -> int:
    """Run a command. An unknown one is a ``NoOffer`` with the nearest name, or the package to install."""
    if name in CORE:
        return _run(name, CORE[name], words)
    catalog = _catalog()
    if _joined(catalog, name) and name not in _names(catalog):  # a group that only plugins have
        return _run_inner(name, f"Commands of plugins: {name}.", {}, words)
    return _run(name, _of_plugins(catalog, name), words)


def _run(name: str, command: Command, words: Sequence[str]) -> int:
    line = load_target(command.target)()
    about = getattr(line, "about", "") or f"{command.summary[:1].upper()}{command.summary[1:]}."
    if inner := getattr(line, "commands", ()):
        return _run_inner(name, about, {one.name: one for one in inner}, words, getattr(line, "default", ""))
    prog = f"vllm-core {name}"
    parser = Parser(prog=prog, description=about.replace("%", "%%"), examples=getattr(line, "examples", ()))
    line.add_arguments(parser)
    return line.run(parser.parse(words))


def _run_inner(group: str, about: str, inner: Mapping[str, Command], words: Sequence[str], default: str = "") -> int:
    """A command that is a group of others, ``vllm-core bench latency``, and of those that plugins add to it.

    ``default`` is the one that runs where none is named.
    """
    prog = f"vllm-core {group}"
    asks_help = bool(words) and words[0] in ("-h", "--help")
    if default and not asks_help and (not words or words[0].startswith("-")):
        words = [default, *words]
    if not words or words[0] in ("-h", "--help", "help"):
        rows, note = dict(inner), ""
        try:
            for joined, command in _joined(_catalog(), group).items():
                rows.setdefault(joined, command)
        except Exception as error:  # as in overview
            note = f"\nPlugins' commands are missing here: {error}\n"
        usage = f"{prog} [COMMAND] ..." if default else f"{prog} COMMAND ..."
        note = f"\nWithout a command: {default}.\n{note}" if default else note
        print(f"usage: {usage}\n\n{about}\n\ncommands:\n{_rows(rows)}\n{note}")
        print(f"{prog} COMMAND --help shows a command's arguments.")
        return 0
    name = f"{group} {words[0]}"
    return _run(name, inner.get(words[0]) or _of_plugins(_catalog(), name, inner), words[1:])


def _names(catalog: Catalog) -> list[str]:
    return [provided.entry.name for provided in catalog.entries("cli_commands")]


def _joined(catalog: Catalog, group: str) -> dict[str, Command]:
    """Plugins' commands of a group, by their names within it."""
    entries = (provided.entry for provided in catalog.entries("cli_commands"))
    head = f"{group} "
    return {entry.name.removeprefix(head): entry for entry in entries if entry.name.startswith(head)}


def _of_plugins(catalog: Catalog, name: str, inner: Collection[str] = ()) -> Command:
    """A plugin's command. ``inner`` are the core's own in its group, if the name has one."""
    if name in _names(catalog):
        return catalog.find("cli_commands", name).entry
    group, _, last = name.rpartition(" ")
    known = [*inner, *_joined(catalog, group)] if group else [*CORE, *_names(catalog)]
    error = catalog.nobody("command", name)
    facts = {**error.facts, "known": ", ".join(known)}
    title = f'vllm-core {group} has no command "{last}"' if group else f'there is no command "{name}"'
    if facts.get("why"):  # somebody has it, disabled or quarantined
        raise UnknownCommand(error.title, **facts)
    if not facts.get("install") and name in INSTEAD:
        facts["instead"] = INSTEAD[name]
        raise UnknownCommand(f"{title}, though vLLM has it.", **facts)
    hint = "" if facts.get("install") else did_you_mean(last, known)
    raise UnknownCommand(f"{title}{hint or '.'}", **facts)


def _catalog() -> Catalog:
    from vllm_core.plugins import load_catalog

    return load_catalog(import_modules=False)
