"""Who logs never waits for who reads, and what is dropped is told."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from vllm_core.engine.log_queue import WHOLE, QueuedHandler

PIPE = 4096  # bytes: the least that a pipe can be made to hold
ROOM = 20_000
PATIENCE = 30.0  # seconds


@pytest.fixture
def pipe():
    """(reader, stream) of a pipe that is soon full."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "w") as stream:
        yield source, stream


def handler_for(stream, room=ROOM):
    handler = QueuedHandler(stream, room)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    return handler


def log(handler, message, *values, level=logging.INFO, error=None):
    handler.handle(logging.LogRecord("vllm_core.test", level, __file__, 1, message, values, error))


def lines_of(source, last):
    """Those up to one that begins so, from a pipe that is read at last."""
    found = bytearray()
    until = time.monotonic() + PATIENCE
    while not any(line.startswith(last) for line in found.split(b"\n")[:-1]) and time.monotonic() < until:
        found += source.read(65536)
    return found.decode().splitlines()


def test_records_are_dropped_and_told_of_where_nobody_reads_and_the_rest_keeps_its_order(pipe):
    source, stream = pipe
    handler = handler_for(stream)
    told = []
    handler.on_drop = told.append
    begun = time.monotonic()
    for i in range(2000):
        log(handler, "number %d %s", i, "x" * 100)
    assert time.monotonic() - begun < PATIENCE  # it did not wait for a reader
    dropped = handler.dropped
    assert 0 < dropped == sum(told) < 2000
    found = lines_of(source, b"WARNING")
    kept = 2000 - dropped
    assert [int(line.split()[2]) for line in found[:kept]] == list(range(kept))  # nothing before the first that is lost
    assert found[kept:] == [f"WARNING {dropped} log records were dropped, because nobody read what was written"]
    log(handler, "after")
    handler.flush()
    assert source.read(100) == b"INFO after\n"
    assert handler.dropped == dropped


def test_the_line_that_tells_of_lost_records_comes_before_the_next_record(pipe):
    source, stream = pipe
    handler = handler_for(stream)
    while not handler.dropped:
        log(handler, "%s", "x" * 1000)
    found, until = b"", time.monotonic() + PATIENCE
    while handler._waiting > ROOM // 2 and time.monotonic() < until:
        found += source.read(1000)
    log(handler, "next")
    found = (found.decode() + "\n".join(lines_of(source, b"INFO next"))).split("WARNING ")
    assert len(found) == 2
    assert found[1].endswith("written\nINFO next")


def test_a_traceback_stays_with_its_record_and_long_lines_stay_whole(pipe):
    source, stream = pipe
    handler = handler_for(stream)
    try:
        raise ValueError("bad \udcff")
    except ValueError:
        log(handler, "failed", error=sys.exc_info())
    log(handler, "y" * 2 * WHOLE)
    log(handler, "end")
    found = lines_of(source, b"INFO end")
    assert found[0] == "INFO failed"
    assert found[1].startswith("Traceback")
    assert found[-3:] == ["ValueError: bad \\udcff", "INFO " + "y" * 2 * WHOLE, "INFO end"]


def test_a_record_that_cannot_be_formatted_is_a_line_too(pipe):
    source, stream = pipe
    handler = handler_for(stream)
    log(handler, "%d", "no number")
    assert b"a record of vllm_core.test cannot be written: TypeError" in source.read(1000)


def test_a_stream_in_memory_is_written_at_once():
    stream = io.StringIO()
    log(handler_for(stream), "here")
    assert stream.getvalue() == "INFO here\n"


def test_a_pipe_without_a_reader_costs_records_and_nothing_else():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        handler = handler_for(stream)
        log(handler, "lost")
        handler.flush()
        assert handler.dropped == 1
        handler.close()


def test_a_pipe_that_does_not_wait_gets_everything(pipe):
    source, stream = pipe
    os.set_blocking(stream.fileno(), False)
    handler = handler_for(stream, 1 << 20)
    for i in range(500):
        log(handler, "number %d %s", i, "x" * 50)
    log(handler, "end")
    assert [line.split()[1] for line in lines_of(source, b"INFO end")] == ["number"] * 500 + ["end"]
    assert not handler.dropped


def test_many_threads_write_whole_lines_each_in_its_order(pipe):
    source, stream = pipe
    handler = handler_for(stream, 1 << 20)
    threads = [
        threading.Thread(target=lambda who=who: [log(handler, "%d %d", who, i) for i in range(300)]) for who in range(4)
    ]
    found = []
    reader = threading.Thread(target=lambda: found.extend(lines_of(source, b"INFO end")))
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    log(handler, "end")
    reader.join()
    pairs = [tuple(map(int, line.split()[1:])) for line in found[:-1]]
    assert len(pairs) == 1200
    for who in range(4):
        assert [i for thread, i in pairs if thread == who] == list(range(300))


LOGS = """
import logging, sys, warnings
from vllm_core.engine.log_queue import log_beside
log_beside()
for i in range(int(sys.argv[1])):
    logging.getLogger("vllm_core.engine").warning("number %d %s", i, "x" * 1000)
    logging.getLogger("vllm_core.engine").info("unseen")
warnings.warn("careful")
print("done", flush=True)
"""


def test_a_process_goes_on_and_ends_although_nobody_reads_what_it_logs():
    command = [sys.executable, "-c", LOGS, "20000"]  # 20 MB: more than pipe and queue hold
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"done\n"
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def test_what_a_process_logged_is_there_when_it_has_ended():
    done = subprocess.run([sys.executable, "-c", LOGS, "500"], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stderr.splitlines()
    assert [line.split()[1] for line in lines[:500]] == [str(i) for i in range(500)]
    assert "UserWarning: careful" in lines[500]
    assert "unseen" not in done.stderr
