"""R6: what a client leaves behind is measured drop by drop, and a server that notices late is found."""

import asyncio
import contextlib

import pytest
from vllm_plugin_server.testing.drops import DropReport, drop_each
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.wire import address_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def narrow(start):
    """A server that computes two requests at once."""
    return start("--max-num-seqs", "2")


@contextlib.asynccontextmanager
async def late(server, seconds):
    """The address of a way to the server that tells it ``seconds`` later that a client has left."""
    held = set()  # nobody else holds a task whose connection is lost, and garbage would end it early

    async def serve(reader, writer):
        held.add(asyncio.current_task())
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def back():
            with contextlib.suppress(OSError):
                while data := await up_reader.read(1 << 16):
                    writer.write(data)
            writer.close()

        task = asyncio.create_task(back())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                up_writer.write(data)
        asyncio.get_running_loop().call_later(seconds, up_writer.transport.abort)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await task

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with proxy:
        yield address_of(f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")


def dropped(server, *, seconds=0.0, drops=40, patience=10.0):
    async def go():
        if not seconds:
            address = address_of(server.url)
            return await drop_each(address, Probe(address, "tiny"), drops=drops, seed=1, patience=patience)
        async with late(server, seconds) as address:
            return await drop_each(address, Probe(address, "tiny"), drops=drops, seed=1, patience=patience)

    return asyncio.run(go())


def test_blocks_come_back_wherever_a_client_leaves(narrow):
    report = dropped(narrow)
    assert [found for found in report.findings if "at p99" not in found] == []  # the command has that limit, on its own
    assert sum(map(len, report.seconds.values())) == 40
    assert {"queue", "decode", "tool call", "structured"} <= report.seconds.keys()
    assert max(report.beyond) < 5
    assert narrow.is_idle()


def test_a_server_that_notices_late_is_found(narrow):
    report = dropped(narrow, seconds=0.4, drops=10)
    assert "at p99" in report.findings[0]


def test_a_server_that_never_notices_is_found(narrow):
    report = dropped(narrow, seconds=2.0, drops=10, patience=0.1)
    assert "there were still" in report.findings[0]
    assert narrow.is_idle(20)


def test_a_step_is_taken_off_what_each_drop_took():
    report = DropReport(steps={"prefill": 1.0, "decode": 0.01})
    report.took("prefill", 1.05)
    report.took("decode", 0.05)
    assert report.beyond == pytest.approx([0.05, 0.04])
    assert report.as_dict()["points"]["prefill"]["dropped"] == 1
