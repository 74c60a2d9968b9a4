"""Single choices of `engine.resolve` that need more than one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError, did_you_mean
from vllm_core.hookspecs import HOOKS
from vllm_core.interfaces.queries import ProposerQuery, QuantizationQuery
from vllm_core.plugins import Decision, Question, Selector
from vllm_core.plugins.catalog import Catalog
from vllm_core.plugins.records import kind_of
from vllm_core.runner.chosen import ProposerChoice

MAX_DRAFTS = 256  # tokens a row and step


class Asking:
    """A selector that knows what the user named: layers ask by hook and never learn of it."""

    def __init__(self, selector: Selector, named: Mapping[str, tuple[str, str]]) -> None:
        self._selector, self._named = selector, named

    def choose(self, hook: str, query: Any, named: str | None = None) -> Decision:
        return self.choose_set([Question(hook, query, named)])[0]

    def choose_set(self, questions: Sequence[Question]) -> list[Decision]:
        return self._selector.choose_set([self._fill(question) for question in questions])

    def _fill(self, question: Question) -> Question:
        name, flag = self._named.get(question.hook, (None, ""))
        return question if name is None else attrs.evolve(question, named=name, asked_by=flag)


def check_prefer(prefer: Mapping[str, Sequence[str]], catalog: Catalog) -> list[str]:
    """Refuse an order among the offers of a hook that does not exist. Returns warnings: names nobody here has."""
    for hook in prefer:
        if hook not in HOOKS:
            hint = did_you_mean(hook, HOOKS) or f"; hooks are {', '.join(HOOKS)}"
            raise SettingError(f'"{hook}" in prefer is no hook{hint}')
    present = {name for plugin in catalog.plugins for name in (plugin.name, plugin.distribution)}
    known = {hook: present.union(catalog.names(kind_of(hook))) for hook in prefer}
    return [
        f'"{name}" in prefer.{hook} is not installed: nothing to prefer{did_you_mean(name, known[hook])}'
        for hook, names in prefer.items()
        for name in names
        if name not in known[hook]
    ]


def choose_step_tokens(settings: EngineSettings, of_platform: int, num_drafts: int) -> int:
    """The most tokens of a step: what the user says, else the platform's, with room for a token and drafts of each row.

    of_platform   the platform's own choice, tokens
    """
    asked, least = settings.max_num_batched_tokens, 1 + num_drafts
    if asked is None:
        return max(of_platform, settings.max_rows * least)
    if asked < least:
        raise ValueError(
            f"max_num_batched_tokens is {asked}: no step has room for a token and its {num_drafts} drafts.\n"
            f"  Any one of these starts:\n    --max-num-batched-tokens {least}\n"
            "    num_speculative_tokens " + (f"{asked - 1}" if asked > 1 else "left out, with speculative_config")
        )
    return asked


def refuse_not_yet(settings: EngineSettings) -> None:
    """Values that stand for something which is not built yet."""
    if settings.kv_cache_dtype != "auto":
        raise SettingError(
            f"kv_cache_dtype is {settings.kv_cache_dtype}: the cache has the number format of the activations so far.\n"
            "  instead leave --kv-cache-dtype at auto"
        )
    if settings.enable_expert_parallel:
        raise SettingError(
            "enable_expert_parallel: no model that this version runs has experts.\n"
            "  instead --tensor-parallel-size splits every layer"
        )
    if settings.decode_context_parallel_size > 1:
        raise SettingError(
            f"decode_context_parallel_size is {settings.decode_context_parallel_size}: the cache of a sequence is not"
            " split over ranks yet.\n  instead --tensor-parallel-size splits it by heads, as far as there are key/value"
            " heads"
        )


def choose_quantization(selector: Selector, settings: EngineSettings, config: Mapping, dtype: str, device: Any) -> Any:
    details = config.get("quantization_config") or {}
    if not isinstance(details, Mapping):
        raise ValueError(f'"quantization_config" in config.json must be a table, not {details!r:.80}')
    method = settings.quantization or details.get("quant_method")
    if not method and details:
        raise ValueError(
            f'"quantization_config" in config.json names no "quant_method", so nobody knows how weights are stored;'
            f" it has {', '.join(map(str, details))}.\n"
            '  instead --hf-overrides \'{"quantization_config": {"quant_method": NAME}}\' says so'
        )
    if not method:
        return None
    query = QuantizationQuery(method=method, config=details, dtype=dtype, device=device)
    asked_by = "--quantization" if settings.quantization else "quantization_config of the checkpoint"
    decision = selector.choose("quantization_method", query, method, asked_by=asked_by)
    return decision.load()({**decision.offer.options, **details})


def choose_proposer(
    selector: Selector, settings: EngineSettings, architecture: str, device: Any
) -> ProposerChoice | None:
    if not settings.speculative_config:
        return None
    config = dict(settings.speculative_config)
    method, num_drafts = config.pop("method", None), config.pop("num_speculative_tokens", None)
    if not isinstance(method, str) or type(num_drafts) is not int or not 1 <= num_drafts <= MAX_DRAFTS:
        raise ValueError(
            f'speculative_config needs "method" (a name) and "num_speculative_tokens" (1 to {MAX_DRAFTS}), '
            f"not {settings.speculative_config!r}"
        )
    query = ProposerQuery(method=method, num_drafts=num_drafts, architecture=architecture, config=config, device=device)
    decision = selector.choose("draft_proposer", query, method, asked_by="speculative_config")
    return ProposerChoice(
        target=decision.offer.target, num_drafts=num_drafts, config={**decision.offer.options, **config}
    )
