"""Models beside the one that is served, which proposers ask for: chosen once, bound to the same caches and backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from vllm_core.interfaces.cache import CacheSpec, RecurrentCache
from vllm_core.interfaces.weights import Checkpoint, Progress
from vllm_core.plugin import load_target
from vllm_core.runner.bound_state import PagedState
from vllm_core.runner.paged import PagedAttention
from vllm_core.runner.plan import EnginePlan
from vllm_core.weights import Table, fill_dummy, load_weights


@attrs.frozen(kw_only=True)
class SecondModel:
    """What was chosen for it."""

    target: str  # "module:Class" with the surface of interfaces.model.Model
    owner: str  # distribution and version, for messages
    config: Mapping[str, Any]
    checkpoint: Checkpoint
    quantization: Any = None


class SecondModels:
    """Those of one engine, by name. ``find`` chooses while a proposer is bound without memory; then all are known.

    find   takes the arguments of `interfaces.proposer.ProposerPlan.second_model` beyond the name
    """

    def __init__(
        self, known: Mapping[str, SecondModel] | None = None, find: Callable[..., SecondModel] | None = None
    ) -> None:
        self.known, self.models = dict(known or {}), dict[str, Any]()
        self._find = find

    def make(self, plan: EnginePlan, name: str, **wanted: Any) -> Any:
        """The model, constructed and bound on the plan's device."""
        if name in self.models:
            raise ValueError(f"a second model {name!r} was asked for twice")
        if name not in self.known:
            if self._find is None:
                raise ValueError(f"no second model {name!r} was chosen; chosen were {', '.join(self.known) or 'none'}")
            self.known[name] = self._find(**wanted)
        found = self.known[name]
        try:
            made = load_target(found.target).from_config(dict(found.config))
        except ValueError as error:
            raise ValueError(f"the second model {name!r} ({found.owner}): {error}") from error
        own = SecondPlan(plan, name, found.quantization, Table(made.weights))
        made.bind(own)
        own.check_invariance(made)
        self.models[name] = made
        return made

    def load(self, dummy_seed: int | None, progress: Progress | None) -> None:
        """Fill all of them, each from its own checkpoint."""
        for name, model in self.models.items():
            if dummy_seed is not None:
                fill_dummy(model, dummy_seed)
            else:
                load_weights(model, self.known[name].checkpoint.source, progress=progress)


class SecondPlan(EnginePlan):
    """The engine's plan with the quantization and weight names of another model; caches lie under its name."""

    def __init__(self, first: EnginePlan, name: str, quantization: Any, weight_table: Table) -> None:
        super().__init__(
            first.choose,
            first.dtype,
            first.torch_device,
            first.device,
            {name: group for name, group in first.groups.items() if name != "pp"},  # all of it is in one stage
            first.max_tokens,
            first.max_position,
            quantization,
            weight_table,
            first.kv_dtype,
            first.max_model_len,
            batch_invariant=first.batch_invariant,
        )
        self._first, self._name = first, name
        self._ops, self._fused, self._rotary = first._ops, first._fused, first._rotary
        self.asked, self.ahead = first.asked, first.ahead

    def cache(self, name: str, spec: CacheSpec, shared_with: str | None = None) -> None:
        self._first.cache(self._under(name), spec, None if shared_with is None else self._under(shared_with))

    def attention(self, path: str, **settings: Any) -> PagedAttention:
        return self._first.attention(self._under(path), **settings)

    def state(self, path: str, spec: RecurrentCache) -> PagedState:
        """A draft runs ahead of what is known, and only attention forgets what it wrote there."""
        raise ValueError(
            f"the second model {self._name!r} has a recurrent state ({path}), and such models cannot draft yet"
        )

    def _under(self, path: str) -> str:
        return f"{self._name}.{path}"
