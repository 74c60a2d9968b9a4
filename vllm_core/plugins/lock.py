"""The lock: what the parent decided, as plain data that every worker builds from and can check.

``digest`` covers the records, the distributions' versions, the hashes of the modules they name and
the settings. No pickle: msgpack with a fixed schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from vllm_core import __version__
from vllm_core.plugin import Offer
from vllm_core.plugins.decision import Decision, Question
from vllm_core.plugins.digest import canonical, digest
from vllm_core.plugins.errors import LockMismatch, NoOffer
from vllm_core.plugins.records import Provided
from vllm_core.plugins.source import locate

__all__ = ["Lock", "LockRecord", "LockedChooser"]


@attrs.frozen(kw_only=True)
class LockRecord:
    """One decision."""

    kind: str  # the hook
    key: str  # digest of the query
    named: str | None
    name: str  # of the offer
    target: str
    rank: int
    takes: dict[str, list[str]]
    gives: dict[str, list[str]]
    needs: list[str]
    capabilities: list[str]
    options: dict[str, Any]
    plugin: str
    distribution: str
    version: str
    why: str

    def offer(self) -> Offer:
        return Offer(
            name=self.name,
            target=self.target,
            rank=self.rank,
            takes=self.takes,
            gives=self.gives,
            needs=self.needs,  # type: ignore[arg-type]  # Offer makes a tuple
            capabilities=self.capabilities,  # type: ignore[arg-type]
            options=self.options,
        )


@attrs.frozen(kw_only=True)
class Lock:
    """All decisions of an engine and what they were made with."""

    records: list[LockRecord]
    distributions: dict[str, str]  # name -> version
    modules: dict[str, str]  # module that a target names -> sha256 of its file
    settings: dict[str, Any]  # plain data

    @classmethod
    def from_decisions(cls, decisions: Iterable[Decision], settings: Mapping[str, Any] | Any = None) -> Lock:
        """Lock decisions. ``settings`` is a mapping or an attrs object of plain values."""
        records = [_record(decision) for decision in decisions]
        return cls(
            records=records,
            distributions={r.distribution: r.version for r in records},
            modules={module: _sha256(module) for module in sorted({r.target.partition(":")[0] for r in records})},
            settings=canonical(settings or {}),
        )

    @property
    def digest(self) -> str:
        """sha256 in hex; equal for equal locks, whatever process made them."""
        return digest(self)

    @property
    def owners(self) -> str:
        """``vllm-core 0.1.0, vllm-plugin-x 0.2.0``: whose the choices are."""
        return ", ".join(f"{name} {version}" for name, version in sorted(self.distributions.items()))

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode({"digest": self.digest, "lock": canonical(self)}, order="deterministic")

    @classmethod
    def from_bytes(cls, data: bytes) -> Lock:
        """Read a lock. ``LockMismatch`` if it is damaged."""
        try:
            envelope = msgspec.msgpack.decode(data)
            lock = msgspec.convert(envelope["lock"], cls)
            stated = envelope["digest"]
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise LockMismatch("the lock cannot be read.", why=f"{type(error).__name__}: {error}") from None
        if stated != lock.digest:
            raise LockMismatch("the lock is damaged.", why=f"it states digest {stated}, its content has {lock.digest}")
        return lock

    def verify(self) -> None:
        """Check that the same versions and files are installed here. ``LockMismatch`` names all that differ."""
        import importlib_metadata

        wrong = []
        for name, version in sorted(self.distributions.items()):
            try:
                installed = __version__ if name == "vllm-core" else importlib_metadata.version(name)
            except importlib_metadata.PackageNotFoundError:
                installed = "not installed"
            if installed != version:
                wrong.append(f"{name} was {version} when the lock was made, here it is {installed}")
        for module, sha256 in sorted(self.modules.items()):
            if _sha256(module) != sha256:
                owners = sorted({r.distribution for r in self.records if r.target.partition(":")[0] == module})
                wrong.append(f"module {module} ({', '.join(owners)}) has other content, or is not there")
        if wrong:
            raise LockMismatch(
                "what is installed here differs from what the engine was resolved with.",
                why=wrong,
                known=f"the lock's digest is {self.digest}",
                instead="restart the engine, and give every host the same packages",
            )


class LockedChooser:
    """Stands where a ``Selector`` does, in workers: gives the recorded decisions and asks nobody."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._found: dict[tuple[str, str], list[LockRecord]] = {}
        for record in lock.records:
            self._found.setdefault((record.kind, record.key), []).append(record)

    def verify(self) -> None:
        """Before anything is built: check what is installed here. ``LockMismatch`` names all that differs."""
        self._lock.verify()

    def choose(
        self, hook: str, query: Any, named: str | None = None, *, asked_by: str = "", first: str = ""
    ) -> Decision:
        """The decision made for this query. ``NoOffer`` if the parent made none: the two processes disagree.

        A layer does not know what the user named, so None accepts a decision that was made for a name.
        ``asked_by`` and ``first`` had their effect when the decision was made.
        """
        made_for = self._found.get((hook, digest(query)), ())
        exact = [r for r in made_for if r.named == named]
        record = next(iter(exact or (made_for if named is None else ())), None)
        if record is None:
            made = sorted({r.kind for r in self._lock.records})
            raise NoOffer(
                f"the lock has no decision of {hook} for this query.",
                why=f"{query!r:.300}" + (f', named "{named}"' if named else ""),
                known=f"decisions of {', '.join(made) or 'no hook'}; lock {self._lock.digest[:12]}",
            )
        provided = Provided(record.offer(), record.plugin, record.distribution, record.version)
        return Decision(hook=hook, query=query, named=named, provided=provided, why=record.why)

    def choose_set(self, questions: Sequence[Question]) -> list[Decision]:
        """As ``Selector.choose_set``."""
        return [self.choose(q.hook, q.query, q.named) for q in questions]

    def choose_model(self, query: Any, named: str | None = None) -> Decision:
        """As ``Selector.choose_model``."""
        return self.choose("model", query, named)


def _record(decision: Decision) -> LockRecord:
    offer = decision.offer
    return LockRecord(
        kind=decision.hook,
        key=digest(decision.query),
        named=decision.named,
        name=offer.name,
        target=offer.target,
        rank=int(offer.rank),
        takes=canonical(offer.takes),
        gives=canonical(offer.gives),
        needs=list(offer.needs),
        capabilities=sorted(offer.capabilities),
        options=canonical(offer.options),
        plugin=decision.provided.plugin,
        distribution=decision.provided.distribution,
        version=decision.provided.version,
        why=decision.why,
    )


def _sha256(module: str) -> str:
    file = locate(module)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
