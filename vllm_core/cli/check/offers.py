"""Checks of what a plugin lists: complete, true, and nobody else's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vllm_core.cli.doctor.finding import Finding
from vllm_core.hookspecs import HOOKS, LISTINGS
from vllm_core.interfaces import queries
from vllm_core.interfaces.device import Device
from vllm_core.plugins.index import lookup
from vllm_core.plugins.records import CORE, kind_of

if TYPE_CHECKING:
    from vllm_core.cli.check.subject import Subject
    from vllm_core.plugins.records import PluginStatus

__all__ = ["BY_NAME", "offers"]

_CPU = Device(type="cpu")
_PARSER: Callable[[str], Any] = lambda name: queries.ParserQuery(name=name, architectures=(), chat_template="")  # noqa: E731

BY_NAME: Mapping[str, Callable[[str], Any]] = {
    "tool_parser": _PARSER,
    "reasoning_parser": _PARSER,
    "quantization_method": lambda name: queries.QuantizationQuery(
        method=name, config={"quant_method": name}, dtype="float32", device=_CPU
    ),
    "rope_variant": lambda name: queries.RopeQuery(
        rope_type=name, head_dim=64, params={"rope_theta": 10000.0}, max_position=4096, max_model_len=4096
    ),
    "draft_proposer": lambda name: queries.ProposerQuery(
        method=name, num_drafts=1, architecture="", config={}, device=_CPU
    ),
    "tokenizer": lambda name: queries.TokenizerQuery(mode=name, path="", files=(), architectures=()),
    "chat_renderer": lambda name: queries.ChatQuery(mode=name, architectures=(), template=""),
    "scheduler_policy": lambda name: queries.SchedulerQuery(policy=name),
    "executor": lambda name: queries.ExecutorQuery(name=name, world_size=1, nodes=1, device=_CPU),
    "platform": lambda name: queries.PlatformQuery(name=name),
    "logits_processor": lambda name: queries.LogitsProcessorQuery(name=name, vocab_size=1000, max_rows=8, device=_CPU),
}
"""Hooks that users ask by name -> the query for a name. Other hooks are asked by what an engine needs."""


def offers(subject: Subject) -> Iterator[Finding]:
    for plugin in subject.plugins:
        yield _complete(plugin)
        if plugin.state == "active":
            yield from _true(subject, plugin)
        yield from _shadows(subject, plugin)


def _complete(plugin: PluginStatus) -> Finding:
    """Each hook with a query has an offer in ``provides()``, and each kind in ``provides()`` a hook."""
    kinds = {kind_of(hook) for hook in plugin.hooks} | set(plugin.hooks)
    listed = {offering.kind for offering in plugin.provides}
    asked = [h for h in plugin.hooks if h not in LISTINGS and h in HOOKS]
    silent = [hook for hook in asked if not {hook, kind_of(hook)} & listed and hook != "model"]
    # A model may be offered through the listing `models` or, for many at once, through `model` alone.
    empty = sorted(kind for kind in listed if kind not in kinds)
    if silent:
        remedy = "an offer that provides() does not list is refused: list it there, with the hook's name as its kind"
        return _finding("provides()", "fail", f"lists nothing for {', '.join(silent)}", remedy)
    if empty:
        return _finding("provides()", "fail", f"lists {', '.join(empty)}, and no hook of that name is implemented")
    if not plugin.provides:
        if "model" in plugin.hooks:
            return _finding("provides()", "ok", "models that it is asked about; none of them listed")
        return _finding("provides()", "warn" if not plugin.hooks else "ok", "it offers nothing by name")
    return _finding("provides()", "ok", ", ".join(map(str, plugin.provides)))


def _true(subject: Subject, plugin: PluginStatus) -> Iterator[Finding]:
    """What is asked by name answers to its names: with an offer, or with a reason."""
    from vllm_core.plugins.ask import ask
    from vllm_core.plugins.decision import Question

    answered = []
    for offering in plugin.provides:
        make = BY_NAME.get(offering.kind)
        if make is None or offering.disabled:
            continue
        answers = ask(subject.catalog, Question(offering.kind, make(offering.name), offering.name))
        mine = [a for a in answers if a.plugin == plugin.name]
        said = mine[0] if mine else None
        if said is None or (said.offer is None and not said.refusal):
            yield _finding(
                str(offering),
                "fail",
                "provides() lists it, and asked for it by name the hook answers None",
                "an Offer, or a Refusal that says why not",
            )
        elif said.error is not None:
            yield _finding(str(offering), "fail", f"asked for by name the hook {said.refusal}")
        else:
            answered.append(str(offering) + ("" if said.offer else f" (refused: {said.refusal})"))
    if answered:
        yield _finding("asked by name", "ok", "; ".join(answered))


def _shadows(subject: Subject, plugin: PluginStatus) -> Iterator[Finding]:
    """Names that the core or another plugin has, too: users of both must choose."""
    clear = True
    for offering in plugin.provides:
        same = (offering.kind, offering.name)
        owners = [p for p in subject.catalog.plugins if any((o.kind, o.name) == same for o in p.provides)]
        others = {p.distribution for p in owners if p.distribution != subject.name}
        others |= {name for name in lookup(*same) if name != subject.name}
        if any(p.name == CORE for p in owners):
            clear = False
            yield _finding(str(offering), "fail", "the core has an offer of this name", "give it a name of its own")
        elif others:
            clear = False
            settle = f'users of both write prefer.{offering.kind} = ["{subject.name}"] under [plugins], or the other'
            yield _finding(str(offering), "warn", f"also offered by {', '.join(sorted(others))}", settle)
    if clear and plugin.provides:
        yield _finding("names", "ok", "none is the core's or another known plugin's")


def _finding(name: str, verdict: Any, says: str, remedy: str = "") -> Finding:
    return Finding("offers", name, verdict, says, remedy=remedy)
