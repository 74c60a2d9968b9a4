"""Put one query to every implementation of a hook."""

from __future__ import annotations

from functools import partial
from typing import Any

from vllm_core.plugin import Offer, Refusal
from vllm_core.plugins.catalog import Catalog
from vllm_core.plugins.decision import Answer, Question
from vllm_core.plugins.errors import PluginError
from vllm_core.plugins.lines import printable
from vllm_core.plugins.patience import Overdue, Patience
from vllm_core.plugins.records import CORE, Offering, PluginStatus, kind_of
from vllm_core.plugins.witness import witnessed

__all__ = ["ask"]


def ask(catalog: Catalog, question: Question) -> list[Answer]:
    """Every plugin's answer. What goes wrong counts as a refusal that keeps the error.

    A plugin that does not answer at all ends the start: the call cannot be ended, and what it holds
    (locks, the processor) would stay held beside a running engine.
    """
    answers = []
    kind = kind_of(question.hook)
    seconds = catalog.policy.answer_timeout
    with Patience(seconds) as patience:
        for plugin, implementation in catalog.implementations(question.hook):
            offered = {o.name: o for o in plugin.provides if o.kind == kind}
            disabled = [o for o in offered.values() if o.disabled]
            off = [_answer(plugin, name=o.name, refusal=o.disabled, remedy=o.remedy) for o in disabled]
            if off and len(off) == len(offered):
                answers += off
                continue
            name = question.named if question.named in offered else ""
            call = partial(implementation, query=question.query, settings=catalog.settings.get(plugin.name))
            try:
                if plugin.name == CORE:
                    said = call()
                else:
                    with witnessed(f"plugin {plugin.label} was asked for {question.hook}"):
                        said = patience.call(call)
            except Overdue:
                raise _overdue(plugin, question.hook, seconds) from None
            except (Exception, SystemExit) as error:
                why = printable(f"raised {type(error).__name__}: {error}")
                answers.append(_answer(plugin, name=name, refusal=why, error=error))
                continue
            answer = _read(plugin, offered, said)
            if isinstance(answer, str):
                answer = _answer(plugin, name=name, refusal=answer, error=TypeError(answer))
            answers.append(answer)
            answers += [row for row in off if row.name != getattr(said, "name", "")]
    return answers


def _overdue(plugin: PluginStatus, hook: str, seconds: float) -> PluginError:
    return PluginError(
        f'plugin "{plugin.name}" was asked for {hook} and had not answered after {seconds:g} s.',
        by=plugin.owner,
        why="its hook hangs, and Python cannot end it: the start ends instead",
        instead=(
            f'block = ["{plugin.name}"] under [plugins] in vllm.toml, or --plugins-block {plugin.name}, drops it',
            "answer_timeout_s under [plugins] in vllm.toml waits longer",
        ),
    )


def _read(plugin: PluginStatus, offered: dict[str, Offering], said: Any) -> Answer | str:
    """The answer, or what is wrong with it."""
    if said is None:
        return _answer(plugin)
    if isinstance(said, Refusal):
        only = next(iter(offered)) if len(offered) == 1 else ""
        return _answer(
            plugin,
            name=said.name or only,
            refusal=printable(said.reason),
            remedy=printable(said.remedy),
            lacks=said.lacks,
        )
    if not isinstance(said, Offer):
        return f"returned {said!r:.80}, not Offer, Refusal or None: a bug of the plugin"
    if said.name not in offered:
        return f'offered "{said.name}", which its provides() does not list: a bug of the plugin'
    if off := offered[said.name].disabled:
        return _answer(plugin, name=said.name, refusal=off, remedy=offered[said.name].remedy)
    return _answer(plugin, name=said.name, offer=said)


def _answer(plugin: PluginStatus, **said: Any) -> Answer:
    return Answer(plugin=plugin.name, distribution=plugin.distribution, version=plugin.version, **said)
