"""Who restricts outputs to grammars: the setting ``structured_outputs_config`` and the hook grammar_backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError, did_you_mean
from vllm_core.interfaces.grammar import KINDS
from vllm_core.interfaces.queries import GrammarQuery
from vllm_core.plugins import Decision, Question, Selector
from vllm_core.plugins.errors import PluginError
from vllm_core.plugins.order import order

__all__ = ["GrammarBackendChoice", "GrammarChoices", "GrammarConfig", "choose_grammars", "read_config"]

AUTO = "auto"
ASKED_BY = "structured_outputs_config"
ELSEWHERE = {"reasoning_parser": "the setting reasoning_parser (--reasoning-parser)"}


@attrs.frozen(kw_only=True)
class GrammarConfig:
    """The keys of ``structured_outputs_config``; the first five are vLLM's."""

    backend: str = AUTO  # or the name of one, which is then the only one asked
    disable_fallback: bool = False  # a specification that the best backend refuses goes to no other
    disable_any_whitespace: bool = False  # JSON without white space that is not needed
    disable_additional_properties: bool = True  # objects have no properties but those that their schema names
    enable_in_reasoning: bool = False  # grammars hold from the first token on, not from behind the reasoning
    compile_seconds: float = 0.8  # for a specification, all backends together
    compile_threads: int = 4
    cached_grammars: int = 256
    cached_mib: int = 512
    warm: bool = True  # a server makes backends ready before the first request that needs one


LIMITS = {
    "compile_seconds": (0.01, 60.0),
    "compile_threads": (1, 32),
    "cached_grammars": (1, 65_536),
    "cached_mib": (1, 65_536),
}


def read_config(given: Mapping[str, Any]) -> GrammarConfig:
    """The setting, checked. ``SettingError`` names the key."""
    known = {field.name: field for field in attrs.fields(GrammarConfig)}
    for key, value in given.items():
        if key not in known:
            instead = ELSEWHERE.get(key)
            hint = f"; {instead} has it" if instead else did_you_mean(key, known) or f"; it has {', '.join(known)}"
            raise SettingError(f"structured_outputs_config has no key {key!r}{hint}")
        default = known[key].default
        if key in LIMITS:
            low, high = LIMITS[key]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high or (isinstance(default, int) and value != int(value)):
                kind = "a whole number" if isinstance(default, int) else "a number"
                raise SettingError(
                    f"structured_outputs_config: {key} must be {kind} from {low} to {high}, not {value!r}"
                )
        elif type(value) is not type(default):
            raise SettingError(f"structured_outputs_config: {key} must be {type(default).__name__}, not {value!r:.80}")
    return GrammarConfig(**given)


@attrs.frozen(kw_only=True)
class GrammarBackendChoice:
    """A backend that may compile."""

    name: str
    target: str
    owner: str  # distribution and version
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f'grammar backend "{self.name}" ({self.owner})'


@attrs.frozen(kw_only=True)
class GrammarChoices:
    """For each kind who compiles it, best first, or why nobody does."""

    config: GrammarConfig
    backends: Mapping[str, tuple[GrammarBackendChoice, ...]]
    refusals: Mapping[str, str]


def choose_grammars(selector: Selector, settings: EngineSettings, vocab_size: int) -> GrammarChoices:
    config = read_config(settings.structured_outputs_config)
    named = None if config.backend == AUTO else config.backend
    backends: dict[str, tuple[GrammarBackendChoice, ...]] = {}
    refusals: dict[str, str] = {}
    first_error: PluginError | None = None
    for kind in KINDS:
        query = GrammarQuery(kind=kind, vocab_size=vocab_size)
        try:
            decision = selector.choose("grammar_backend", query, named, asked_by=ASKED_BY)
        except PluginError as error:
            refusals[kind] = str(error)
            first_error = first_error or error
        else:
            alone = named is not None or config.disable_fallback
            backends[kind] = _ranked(selector, decision)[: 1 if alone else None]
    if named is not None and not backends and first_error is not None:
        raise first_error  # what the user named must work
    return GrammarChoices(config=config, backends=backends, refusals=refusals)


def _ranked(selector: Selector, decision: Decision) -> tuple[GrammarBackendChoice, ...]:
    """The winner, then the others who offered."""
    question = Question(decision.hook, decision.query)
    others: Sequence[Any] = order(question, decision.answers, selector.prefer(decision.hook), selector.device)
    answers = [c.answer for c in others if c.answer.offer is not decision.offer]
    first = GrammarBackendChoice(
        name=decision.offer.name,
        target=decision.offer.target,
        owner=decision.provided.owner,
        options=dict(decision.offer.options),
    )
    return (
        first,
        *(
            GrammarBackendChoice(name=a.offer.name, target=a.offer.target, owner=a.owner, options=dict(a.offer.options))
            for a in answers
            if a.offer is not None
        ),
    )
