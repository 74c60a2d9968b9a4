"""Answers the lines of a batch, many at once, and writes them in their order."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
import msgspec

from vllm_plugin_server.batch.asgi import Answer
from vllm_plugin_server.batch.lines import BadLine, Line
from vllm_plugin_server.batch.writer import OrderedWriter

__all__ = ["BatchReport", "EngineEnded", "run"]

AHEAD = 4  # times the concurrency: how many answers may wait for a slow one before them
LONGEST_WAIT = 5.0  # seconds before a request that found no room is tried again

Ask = Callable[[str, bytes], Awaitable[Answer]]  # path, body


class EngineEnded(RuntimeError):
    """No more answers can be had; what is written stays for ``--resume``."""


@attrs.define
class BatchReport:
    answered: int = 0  # in this run
    failed: int = 0
    resumed: int = 0  # of a run before


class _Error(msgspec.Struct):
    error: dict[str, Any] | None = None


async def run(
    lines: Iterable[Line | BadLine],
    ask: Ask,
    writer: OrderedWriter,
    *,
    at_once: int,
    done: Callable[[], None] = lambda: None,
) -> BatchReport:
    """``at_once`` requests at a time. An answer for every line, good or bad."""
    report = BatchReport(resumed=writer.written)
    running: set[asyncio.Task[None]] = set()

    async def one(index: int, line: Line | BadLine) -> None:
        written, failed = await _answer(line, ask)
        writer.add(index, written)
        report.answered += 1
        report.failed += failed
        done()

    async def room(most: int) -> None:
        """Wait until at most so many run; what one raises is raised here."""
        while len(running) > most:
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running.difference_update(ended)
            for task in ended:
                task.result()

    try:
        for index, line in enumerate(lines):
            if index < len(writer.ids):
                _check_same(index, line, writer)
                continue
            await room(at_once - 1)
            while index - writer.written >= at_once * AHEAD:
                await room(len(running) - 1)
            running.add(asyncio.create_task(one(index, line)))
        await room(0)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return report


def _check_same(index: int, line: Line | BadLine, writer: OrderedWriter) -> None:
    if writer.ids[index] != line.custom_id:
        raise ValueError(
            f"{writer.partial} is of another input: its answer {index + 1} is for {writer.ids[index]!r}, line "
            f"{line.number} of the input has {line.custom_id!r}\n  instead delete it to begin anew"
        )


async def _answer(line: Line | BadLine, ask: Ask) -> tuple[bytes, bool]:
    """The line of the output, and whether it tells of a failure."""
    if isinstance(line, BadLine):
        error = {"code": "invalid_line", "message": f"line {line.number}: {line.why}"}
        return _written(line.custom_id, None, error), True
    while (answer := await ask(line.url, line.body)).status == 429:  # outputs of others: n above 1 takes more room
        await asyncio.sleep(min(float(answer.headers.get(b"retry-after", b"1")), LONGEST_WAIT))
    if not answer.headers.get(b"content-type", b"").startswith(b"application/json"):
        error = {"code": "not_json", "message": f"line {line.number}: {_no_json(answer)}"}
        return _written(line.custom_id, None, error), True
    body = msgspec.Raw(answer.body)
    found = msgspec.json.decode(answer.body, type=_Error).error if answer.status >= 400 else None
    if found and answer.status == 503 and found.get("code") == "engine_dead":
        raise EngineEnded(str(found.get("message", "the engine has ended")))
    request_id = answer.headers.get(b"x-vllm-core-request-id", b"").decode() or f"req-{uuid.uuid4().hex}"
    response = {"status_code": answer.status, "request_id": request_id, "body": body}
    return _written(line.custom_id, response, found), answer.status >= 400


def _no_json(answer: Answer) -> str:
    if answer.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        return "a stream cannot stand in a file; leave stream out"
    return f"the route answers {answer.status} and no JSON"


def _written(custom_id: str | None, response: Any, error: Any) -> bytes:
    fields = {"id": f"vllm-{uuid.uuid4().hex}", "custom_id": custom_id, "response": response, "error": error}
    return msgspec.json.encode(fields)
