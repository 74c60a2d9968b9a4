"""What the routes of responses share: the store, and the responses that are made in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import attrs

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.errors import ApiError, bad_request, error_of
from vllm_plugin_server.limits import most
from vllm_plugin_server.responses.run import Run
from vllm_plugin_server.responses.store import ResponseStore, Turn, history
from vllm_plugin_server.stream import event

__all__ = ["Desk", "Live", "sse"]

MIB = 1 << 20


@attrs.define(eq=False)
class Live:
    """A response that is being made in the background, and what was told of it.

    log   the events, if they may be asked for; None if not, or if they became too many
    """

    owner: str
    run: Run
    given: Sequence[Mapping[str, Any]]
    before: Turn | None
    streams: bool
    log: list[bytes] | None
    size: int = 0  # bytes of the log
    over: bool = False
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    def tell(self, events: Sequence[dict[str, Any]]) -> None:
        if self.log is not None:
            self.log += [sse(one) for one in events]
            self.size += sum(map(len, self.log[len(self.log) - len(events) :]))
            if self.size > most("response_log_bytes"):
                self.log = None
        self.changed.set()
        self.changed = asyncio.Event()

    async def follow(self, after: int = -1) -> AsyncIterator[bytes]:
        """Events with larger numbers, as they come."""
        at = after + 1
        while True:
            if self.log is None:
                raise ApiError(
                    409, "the events of this response became too many to be kept; retrieve it without stream"
                )
            if at < len(self.log):
                news, at = self.log[at:], len(self.log)
                yield b"".join(news)
            elif self.over:
                return
            else:
                await self.changed.wait()


class Desk:
    """One for each server; ``Desk.of(context)``."""

    def __init__(self, context: ServerContext) -> None:
        settings = context.settings
        self.store = ResponseStore(settings.response_store, settings.response_store_mib * MIB)
        self.live: dict[tuple[str, str], Live] = {}
        self._limit: float | None = settings.request_timeout  # seconds
        self.why_not = ""  # why nothing is kept
        if not settings.response_store or not settings.response_store_mib:
            self.why_not = "this server keeps no responses (--response-store 0)"
        elif getattr(settings, "api_server_count", 1) > 1:
            self.why_not = "responses are kept in one process, and this server has several (--api-server-count)"
        context.on_shutdown.append(self.close)

    @classmethod
    def of(cls, context: ServerContext) -> Desk:
        if "responses" not in context.state:
            context.state["responses"] = cls(context)
        return context.state["responses"]

    def need_store(self, param: str | None, what: str) -> None:
        if self.why_not:
            raise bad_request(f"{what} cannot be served: {self.why_not}", param, "unsupported_value")

    def found(self, owner: str, id: str) -> dict[str, Any]:
        """A response by its id, ended or not. ``ApiError`` 404."""
        live = self.live.get((owner, id))
        response = live.run.response if live is not None else self.store.get(owner, id)
        if response is None:
            raise self.gone(id)
        return response

    def turn(self, owner: str, id: str) -> Turn:
        """Where a conversation goes on from."""
        self.need_store("previous_response_id", "previous_response_id")
        if (owner, id) in self.live:
            raise bad_request(f"response {id[:80]!r} has not ended yet", "previous_response_id", "response_in_progress")
        turn = self.store.turn(owner, id)
        if turn is None:
            raise self.gone(id, "previous_response_id", "previous_response_not_found")
        return turn

    def given(self, owner: str, id: str) -> list[dict[str, Any]]:
        """What a response was given, with what the ones before it were given and gave."""
        live = self.live.get((owner, id))
        if live is not None:
            return [*history(live.before), *live.given]
        found = self.store.given(owner, id)
        if found is None:
            raise self.gone(id)
        return found

    def gone(self, id: str, param: str = "response_id", code: str = "response_not_found") -> ApiError:
        why = self.why_not or (
            f"the last {self.store.most_responses:,} are kept, in {self.store.most_bytes // MIB:,} MiB, until the"
            " server ends, for the key that asked for them"
        )
        return ApiError(
            404, f"there is no response {id[:80]!r} here (any more): {why}",
            type="invalid_request_error", param=param, code=code,
        )  # fmt: skip

    def keep(
        self, owner: str, run: Run, given: Sequence[Mapping[str, Any]], before: Turn | None, log: bytes = b""
    ) -> None:
        self.store.put(owner, run.response, given, before, log)

    def start(self, live: Live, make: Callable[[], AsyncIterator[list[dict[str, Any]]]]) -> None:
        """Make a response in the background; ``make`` gives its events."""
        key = live.owner, live.run.response["id"]
        self.live[key] = live
        live.task = asyncio.create_task(self._make(live, make, key))

    async def _make(
        self, live: Live, make: Callable[[], AsyncIterator[list[dict[str, Any]]]], key: tuple[str, str]
    ) -> None:
        try:
            live.tell(live.run.begin())
            async with asyncio.timeout(self._limit), aclosing(make()) as running:  # type: ignore[type-var]
                async for events in running:
                    live.tell(events)
        except asyncio.CancelledError:  # nobody waits for this task but who cancelled it
            live.run.cancel()
        except Exception as error:
            live.tell(live.run.fail(error_of(error)))
        finally:
            log = b"".join(live.log) if live.streams and live.log is not None else b""
            if self.live.pop(key, None) is not None:
                self.keep(live.owner, live.run, live.given, live.before, log)
            live.over = True
            live.changed.set()

    async def cancel(self, owner: str, id: str) -> dict[str, Any]:
        """End a response that is made in the background."""
        live = self.live.get((owner, id))
        if live is not None and live.task is not None:
            live.task.cancel()
            await asyncio.gather(live.task, return_exceptions=True)
            return live.run.response
        response = self.found(owner, id)
        if not response["background"]:
            raise bad_request("only a response with background=true can be cancelled", "response_id")
        return response

    async def delete(self, owner: str, id: str) -> None:
        live = self.live.pop((owner, id), None)
        if live is not None and live.task is not None:
            live.task.cancel()
            await asyncio.gather(live.task, return_exceptions=True)
        elif not self.store.delete(owner, id):
            raise self.gone(id)

    async def close(self) -> None:
        """The server ends."""
        tasks = [live.task for live in self.live.values() if live.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sse(content: dict[str, Any]) -> bytes:
    return event(content, content["type"])
