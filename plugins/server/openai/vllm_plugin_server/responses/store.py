"""Responses that later requests may go on from, each with the key that made it.

What is kept is bytes, so that what is counted is what is held. Of the key that holds most, the least recently used
goes first, so that no key pushes out another that keeps to its share. A response shares the turns before it with the
responses that it went on from; a turn stays as long as anything goes on from it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec

__all__ = ["ResponseStore", "Turn", "history"]

OVERHEAD = 1024  # bytes that a turn or a response takes beside its text, about


@attrs.define(eq=False)
class Turn:
    """What one response was given and what it gave, as JSON."""

    owner: str
    given: bytes  # items
    made: bytes  # items
    before: Turn | None
    item_ids: tuple[str, ...]  # of ``made``
    length: int = 0  # bytes of items up to and with this turn
    users: int = 0  # responses and later turns; in the store while there are any

    @property
    def size(self) -> int:
        return len(self.given) + len(self.made) + OVERHEAD


@attrs.frozen(eq=False)
class _Kept:
    response: bytes  # JSON without its output
    turn: Turn
    log: bytes = b""  # its events, of one that was streamed in the background

    @property
    def size(self) -> int:
        return len(self.response) + len(self.log) + OVERHEAD


@attrs.define(eq=False)
class _Owner:
    kept: OrderedDict[str, _Kept] = attrs.field(factory=OrderedDict)  # the least recently used first
    bytes: int = 0


class ResponseStore:
    """At most ``responses`` of them, in at most ``size`` bytes. ``owner``: whose key; nobody sees another's."""

    def __init__(self, responses: int, size: int) -> None:
        self.most_responses, self.most_bytes = responses, size
        self.bytes = 0
        self._owners: dict[str, _Owner] = {}
        self._items: dict[tuple[str, str], Turn] = {}

    def __len__(self) -> int:
        return sum(len(owner.kept) for owner in self._owners.values())

    def put(
        self,
        owner: str,
        response: Mapping[str, Any],
        given: Sequence[Any],
        before: Turn | None = None,
        log: bytes = b"",
    ) -> None:
        """Keep a response that has ended, with the items it was ``given`` after those of ``before``."""
        made = response["output"]
        ids = tuple(item["id"] for item in made)
        turn = Turn(owner, msgspec.json.encode(given), msgspec.json.encode(made), before, ids)
        turn.length = len(turn.given) + len(turn.made) + (0 if before is None else before.length)
        kept = _Kept(msgspec.json.encode({**response, "output": []}), turn, log)
        self.delete(owner, response["id"])
        self._owners.setdefault(owner, _Owner()).kept[response["id"]] = kept
        self._count(owner, kept.size)
        self._use(turn)
        while self.bytes > self.most_bytes:
            self._drop_from(max(self._owners, key=lambda name: self._owners[name].bytes))
        while len(self) > self.most_responses:
            self._drop_from(max(self._owners, key=lambda name: len(self._owners[name].kept)))

    def get(self, owner: str, id: str) -> dict[str, Any] | None:
        kept = self._touch(owner, id)
        if kept is None:
            return None
        return {**msgspec.json.decode(kept.response), "output": msgspec.json.decode(kept.turn.made)}

    def log(self, owner: str, id: str) -> bytes:
        """Its events as they were sent; b"" if they were not kept."""
        kept = self._touch(owner, id)
        return b"" if kept is None else kept.log

    def turn(self, owner: str, id: str) -> Turn | None:
        """Where a conversation can go on from."""
        kept = self._touch(owner, id)
        return None if kept is None else kept.turn

    def given(self, owner: str, id: str) -> list[dict[str, Any]] | None:
        """The items that a response was given, those of responses before it included."""
        kept = self._touch(owner, id)
        if kept is None:
            return None
        return [*history(kept.turn.before), *msgspec.json.decode(kept.turn.given)]

    def item(self, owner: str, id: str) -> dict[str, Any] | None:
        """An item that a response of this owner gave."""
        turn = self._items.get((owner, id))
        made = () if turn is None else msgspec.json.decode(turn.made)
        return next((item for item in made if item["id"] == id), None)

    def delete(self, owner: str, id: str) -> bool:
        found = self._touch(owner, id) is not None
        if found:
            self._drop(owner, id)
        return found

    # ---- inside

    def _touch(self, owner: str, id: str) -> _Kept | None:
        known = self._owners[owner].kept if owner in self._owners else {}
        if id not in known:
            return None
        known.move_to_end(id)
        return known[id]

    def _drop_from(self, owner: str) -> None:
        self._drop(owner, next(iter(self._owners[owner].kept)))

    def _drop(self, owner: str, id: str) -> None:
        kept = self._owners[owner].kept.pop(id)
        self._count(owner, -kept.size)
        self._leave(kept.turn)
        if not self._owners[owner].kept:
            del self._owners[owner]

    def _count(self, owner: str, size: int) -> None:
        self.bytes += size
        self._owners[owner].bytes += size

    def _use(self, turn: Turn | None) -> None:
        while turn is not None:
            turn.users += 1
            if turn.users > 1:
                return
            self._count(turn.owner, turn.size)
            self._items |= {(turn.owner, id): turn for id in turn.item_ids}
            turn = turn.before

    def _leave(self, turn: Turn | None) -> None:
        while turn is not None:
            turn.users -= 1
            if turn.users:
                return
            self._count(turn.owner, -turn.size)
            for id in turn.item_ids:
                self._items.pop((turn.owner, id), None)
            turn = turn.before


def history(turn: Turn | None) -> Iterator[dict[str, Any]]:
    """All items up to and with a turn, the oldest first."""
    turns = []
    while turn is not None:
        turns.append(turn)
        turn = turn.before
    for one in reversed(turns):
        yield from msgspec.json.decode(one.given)
        yield from msgspec.json.decode(one.made)
