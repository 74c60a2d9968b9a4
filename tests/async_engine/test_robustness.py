"""What one request brings about, or a front sends, is its own; and nothing grows with the number of requests."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tests.async_engine.helpers import LONG, first, greedy, idle, last
from tests.engine.fake_device import FakeDevice
from tests.engine.harness import make_engine, run
from tests.loading.checkpoints import tiny_model, write
from vllm_core import AsyncLLM, SamplingParams
from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.errors import RequestError
from vllm_core.engine.policy import FirstComeFirstServed

SETTINGS = {"dtype": "float32", "max_num_seqs": 32, "max_num_batched_tokens": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model(max_position_embeddings=4096)))


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as found:
        yield found.run


@pytest.fixture(scope="module")
def llm(folder, runner):
    engine = AsyncLLM(folder, **SETTINGS)
    yield engine
    engine.shutdown()


def test_a_request_whose_log_probabilities_cannot_be_read_fails_alone(llm, runner):
    def broken(count):
        raise MemoryError("no room for these")

    async def ask():
        good = [llm.generate(f"Good {i}", greedy(100)) for i in range(3)]
        bad = llm.generate("Bad", LONG, request_id="bad")
        for stream in (*good, bad):
            await first(stream)
        llm._desk._processor._tracks["bad"].samples["bad"].logprobs.sampled = broken
        return await asyncio.gather(*map(last, good)), await last(bad), await idle(llm)

    good, bad, back = runner(ask())
    assert [len(output.outputs[0].token_ids) for output in good] == [100] * 3
    assert bad.error == "MemoryError while its output was made: no room for these"
    assert bad.outputs[0].finish_reason == "error"
    assert back


def test_parameters_that_no_message_can_hold_are_refused(llm, runner, monkeypatch):
    prepare = llm._desk._intake.prepare

    def prepared(*arguments, **options):
        (new,) = prepare(*arguments, **options)
        new.sampling.extra_args["x"] = object()
        return [new]

    async def ask():
        monkeypatch.setattr(llm._desk._intake, "prepare", prepared)
        with pytest.raises(RequestError, match="cannot be sent to the engine"):
            await last(llm.generate("Bad", greedy(3)))
        monkeypatch.undo()
        assert llm.num_requests == 0
        return await last(llm.generate("Good", greedy(3)))

    assert len(runner(ask()).outputs[0].token_ids) == 3


def test_frames_that_are_no_messages_are_left_out(llm, runner):
    async def ask():
        stream = llm.generate("Good", greedy(200))
        await first(stream)
        socket = llm._engine.link._socket
        for frame in (b"", b"\xc1", b"garbage", b"\x81\xa4type\xa4None", os.urandom(300)):
            socket.send(frame)
        socket.send_multipart([b"three", b"frames", b"here"])
        output = await last(stream)
        await llm.check_health()
        return output

    assert len(runner(ask()).outputs[0].token_ids) == 200


class Picky(FirstComeFirstServed):
    def key(self, request):
        if request.prompt_tokens == 3:
            raise ZeroDivisionError("three is too many")
        return ()


@pytest.mark.parametrize("where", ["policy", "cache"])
def test_what_breaks_while_a_request_is_queued_leaves_nothing_of_it(where, monkeypatch):
    engine = make_engine(FakeDevice(max_rows=4), policy=Picky() if where == "policy" else None)
    if where == "cache":
        whole = CacheManager.open

        def opened(self, name, tokens, **options):
            if len(tokens) == 3:
                raise MemoryError
            whole(self, name, tokens, **options)

        monkeypatch.setattr(CacheManager, "open", opened)
    refused = {}
    for name, ids in {"a": [1, 2], "bad": [1, 2, 3], "b": [4, 5]}.items():
        try:
            engine.add_request(name, ids, SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
        except RequestError as error:
            refused[name] = error.reason
    assert sorted(run(engine)) == ["a", "b"]
    assert list(refused) == ["bad"]
    assert "while it was queued" in refused["bad"]


def resident(pid):
    """MiB, and open files, and threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
    return int(found["VmRSS"]) / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(found["Threads"])


def test_thousands_of_requests_leave_nothing_behind(llm, runner):
    count = int(os.environ.get("SOAK_REQUESTS", "1500"))

    async def one(i, gate):
        async with gate:
            drawn = {"temperature": 0.7, "seed": i, "n": 1 + (i % 7 == 0)} if i % 2 else {"temperature": 0}
            params = SamplingParams(max_tokens=1 + i % 4, logprobs=i % 3 or None, **drawn)
            outputs = llm.generate({"prompt_token_ids": [2 + i % 300, 3 + i % 7, 5]}, params, stream=i % 5 > 0)
            async for _ in outputs:
                if i % 11 == 0:
                    break
            await outputs.aclose()

    async def burst(numbers):
        gate = asyncio.Semaphore(48)
        await asyncio.gather(*[one(i, gate) for i in numbers])
        assert await idle(llm)
        return [resident(os.getpid()), resident(llm.pid)]

    async def ask():
        return await burst(range(300)), await burst(range(300, count))

    before, after = runner(ask())
    for (memory, files, threads), (later, files_later, threads_later) in zip(before, after, strict=True):
        assert later - memory < 64
        assert files_later <= files + 1
        assert threads_later <= threads + 1
    desk = llm._desk
    for books in (desk.waiters, desk._calls, desk._processor._tracks, desk._processor._of):
        assert not books
    assert threading.active_count() < 20
