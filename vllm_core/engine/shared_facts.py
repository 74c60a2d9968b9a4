"""What other fronts of an engine know of it: told by its owner, so that none of them has to choose a model and torch.

A front makes of it what reads and writes text. Its own choices are made as the owner's were, with the owner's lock:
the same packages and files (``Lock.verify``) and the same settings, or the engine refuses its digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from vllm_core.config.engine import EngineSettings
from vllm_core.config.plugins import plugin_settings
from vllm_core.engine.choose_grammars import GrammarChoices
from vllm_core.engine.fleet.plan import alone
from vllm_core.engine.text import Text, read_text
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import LogitsProcessorQuery, SchedulerQuery
from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.plugin import load_target
from vllm_core.plugins import Lock, Selector, load_catalog, read_policy
from vllm_core.plugins.digest import canonical
from vllm_core.plugins.explain import explain
from vllm_core.plugins.needs import INVARIANT

__all__ = ["SharedFacts", "ToldPolicy", "ToldProcessor"]


class ToldProcessor(msgspec.Struct, frozen=True, kw_only=True):
    """A logits processor of the engine, as requests are checked by it."""

    name: str
    target: str
    query: LogitsProcessorQuery

    def load(self) -> Any:
        return load_target(self.target)


class ToldPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler's policy, which may look at requests' parameters."""

    name: str
    target: str
    query: SchedulerQuery

    def load(self) -> Any:
        return load_target(self.target)


@attrs.frozen
class _Checkpoint:
    tokenizer: TokenizerFiles | None


class SharedFacts(msgspec.Struct, frozen=True, kw_only=True):
    lock: bytes  # Lock.to_bytes
    choices: list[dict[str, Any]]  # as ``explain`` has them
    device: Device
    architectures: list[str]
    eos_token_ids: list[int]
    generation_config: dict[str, Any]
    tokenizer: TokenizerFiles | None  # of the checkpoint
    tokenizer_settings: str  # its own, as JSON: "model_max_length" is often a number of 100 bits
    grammars: GrammarChoices
    processors: list[ToldProcessor]
    policy: ToldPolicy

    @classmethod
    def of(cls, resolved: Any) -> SharedFacts:
        """``resolved``: ``engine.resolve.Resolved``, after its text was opened."""
        tokenizer = None if resolved.settings.skip_tokenizer_init else resolved.checkpoint.tokenizer
        return cls(
            lock=resolved.lock.to_bytes(),
            choices=explain(resolved.selector.decisions)["choices"],
            device=resolved.selector.device,
            architectures=list(resolved.build.model.config.get("architectures") or ()),
            eos_token_ids=list(resolved.eos_token_ids),
            generation_config=dict(resolved.generation_config),
            tokenizer=None if tokenizer is None else attrs.evolve(tokenizer, settings={}),
            tokenizer_settings=json.dumps({} if tokenizer is None else dict(tokenizer.settings)),
            grammars=resolved.build.grammars.choices,
            processors=[ToldProcessor(name=p.name, target=p.target, query=p.query) for p in resolved.build.processors],
            policy=ToldPolicy(name=resolved.policy.name, target=resolved.policy.target, query=resolved.policy.query),
        )

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(self, enc_hook=_plain)

    @classmethod
    def from_bytes(cls, data: bytes) -> SharedFacts:
        return msgspec.msgpack.decode(data, type=cls)

    def lock_with(self, settings: EngineSettings) -> Lock:
        """The lock of a front with these settings. ``LockMismatch`` if other packages are installed here."""
        lock = Lock.from_bytes(self.lock)
        lock.verify()
        return attrs.evolve(lock, settings=canonical(attrs.asdict(alone(settings))))

    def selector(self, settings: EngineSettings) -> Selector:
        """Asks the plugins of this process, as the owner asked its own."""
        catalog = load_catalog(read_policy(settings.plugins))
        catalog.settings = plugin_settings(catalog, settings.plugin)
        needs = (INVARIANT,) if settings.batch_invariant else ()
        selector = Selector(catalog, prefer=settings.prefer, needs=needs)
        selector.device = self.device
        return selector

    def read_text(self, selector: Selector, settings: EngineSettings) -> Text:
        config: Mapping[str, Sequence[str]] = {"architectures": self.architectures}
        tokenizer = self.tokenizer
        if tokenizer is not None:
            tokenizer = attrs.evolve(tokenizer, settings=json.loads(self.tokenizer_settings))
        return read_text(selector, settings, _Checkpoint(tokenizer), config, self.eos_token_ids)


def _plain(value: Any) -> Any:
    """Options that plugins gave, say, are mappings that nobody may change."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} of the engine's facts cannot be sent")
