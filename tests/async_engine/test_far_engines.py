"""Engines of a further node: authenticated, told apart from strangers, and given up when their node is silent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import zmq
from msgspec import structs

from tests.async_engine.helpers import LONG, ROOT, ended, first, greedy, last, until
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, AsyncLLM, __version__
from vllm_core.config.errors import SettingError
from vllm_core.engine.far.gate import Gate
from vllm_core.engine.far.secret import Keys, read_keys
from vllm_core.engine.far.words import Report, decode_answer, encode
from vllm_core.engine.home import Status

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64}
PROMPTS = [f"Number {i}, and then" for i in range(6)]
NODE = """
import json, logging, sys
from vllm_core.config.engine import EngineSettings
from vllm_core.serving import run_node
logging.basicConfig(level="INFO")
sys.exit(run_node(EngineSettings(**json.loads(sys.argv[1])), 3))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model(max_position_embeddings=4096)))


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("x" * 40)
    path.chmod(0o600)
    return str(path)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def node_process(folder, **settings):
    given = json.dumps({"model": folder, **SETTINGS, **settings})
    command = [sys.executable, "-c", NODE, given]
    return subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, text=True, start_new_session=True)


@pytest.fixture
def both(folder, secret):
    """A server with engine 0, and the process of a node with engine 1."""
    fleet = {
        "data_parallel_size": 2, "data_parallel_size_local": 1, "data_parallel_address": "127.0.0.1",
        "data_parallel_rpc_port": free_port(), "data_parallel_secret_file": secret,
    }  # fmt: skip
    process = node_process(folder, **fleet, data_parallel_start_rank=1)
    llm = AsyncLLM(folder, **SETTINGS, **fleet, restarts=3, carry_over=True)
    yield llm, process
    llm.shutdown()
    process.terminate()
    assert process.wait(30) == 0
    process.stderr.close()


def test_a_node_serves_as_a_local_engine_does_and_its_silence_is_noticed(both, folder):
    llm, process = both
    with LLM(folder, **SETTINGS) as local:
        expected = [o.outputs[0].token_ids for o in local.generate(PROMPTS, greedy(2500), use_tqdm=False)]
    other = AsyncLLM.connect(llm.address, llm.settings)

    async def ask(front):
        return await asyncio.gather(*[last(front.generate(p, greedy(300))) for p in PROMPTS])

    async def run():
        outputs = [await ask(llm), await ask(other)]
        streams = [llm.generate(p, greedy(2500)) for p in PROMPTS]
        for stream in streams:
            await first(stream)
        os.kill(process.pid, signal.SIGSTOP)  # its engine goes on: nobody hears of it
        carried = await asyncio.gather(*map(last, streams))
        states = llm.states
        await llm.check_health()
        alone = [await last(llm.generate("Once", greedy(5)))]
        third = await asyncio.to_thread(AsyncLLM.connect, llm.address, llm.settings)
        alone.append(await last(third.generate("Once", greedy(5))))
        os.kill(process.pid, signal.SIGCONT)
        back = await until(lambda: {front.states[1] for front in (llm, other, third)} == {"ready"}, 60)
        again = [await ask(llm), await ask(other), await ask(third)]
        third.shutdown()
        stats = await llm.stats()
        return outputs, carried, states, alone, back, again, stats

    outputs, carried, states, alone, back, again, stats = asyncio.run(run())
    assert [o.outputs[0].token_ids for o in carried] == expected
    assert {o.metrics.engine for o in carried} == {0}
    for found in (*outputs, *again):
        assert [o.outputs[0].token_ids for o in found] == [tokens[:300] for tokens in expected]
    for found in (*outputs, *again):
        assert {o.metrics.engine for o in found} == {0, 1}
    assert states == {0: "ready", 1: "restarting"}
    assert {o.metrics.engine for o in alone} == {0}
    assert back
    assert (stats.running, stats.waiting) == (0, 0)  # what ran behind the silence was ended
    assert list(llm.pids) == [0]  # the other one is no process of this host
    other.shutdown()


def test_a_killed_engine_of_a_node_is_started_again_there(both):
    llm, _ = both

    async def run():
        streams = [llm.generate(p, greedy(300)) for p in PROMPTS]
        for stream in streams:
            await first(stream)
        pid = next(e.pid for e in (await llm.stats()).engines if e.engine == 1)
        os.kill(pid, signal.SIGKILL)
        outputs = await asyncio.gather(*map(last, streams))
        assert await until(lambda: llm.states[1] == "ready" and llm._fleet.replicas[1].engine.pid != pid, 60)
        return outputs, pid

    outputs, pid = asyncio.run(run())
    assert [len(o.outputs[0].token_ids) for o in outputs] == [300] * len(PROMPTS)
    assert ended(pid, 2)


def test_requests_of_a_front_that_leaves_end_at_the_node_too(both):
    llm, _ = both
    other = AsyncLLM.connect(llm.address, llm.settings)

    async def run():
        streams = [other.generate("Once", LONG) for _ in range(4)]
        for stream in streams:
            await first(stream)
        other.shutdown()
        for _ in range(200):
            stats = await llm.stats()
            if (stats.running, stats.waiting) == (0, 0):
                return True
            await asyncio.sleep(0.05)
        return False

    assert asyncio.run(run())


# ---- the gate alone


@pytest.fixture
def gate(secret):
    found = Gate("127.0.0.1", free_port(), read_keys(secret, gate=True), (1, 2))
    yield found
    found.close()


def knock(gate, keys, report, seconds=5.0):
    """What the gate answers, or None."""
    context = zmq.Context()
    knocking = context.socket(zmq.DEALER)
    if keys is not None:
        knocking.setsockopt(zmq.CURVE_SERVERKEY, keys.other)
        knocking.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        knocking.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    knocking.setsockopt(zmq.LINGER, 0)
    knocking.connect(gate.endpoint)
    knocking.send(encode(report))
    answer = decode_answer(knocking.recv()) if knocking.poll(1000 * seconds) else None
    knocking.close()
    context.term()
    return answer


def report(number=1, **changed):
    status = Status(state="ready", owner=1, engine=2, starts=1)
    made = Report(version=__version__, host="elsewhere", session=0, engines={number: status})
    return structs.replace(made, **changed)


def test_a_stranger_is_not_heard(gate, tmp_path, secret):
    wrong = tmp_path / "wrong"
    wrong.write_text("y" * 40)
    wrong.chmod(0o600)
    assert knock(gate, None, report(), 1.0) is None
    assert knock(gate, read_keys(str(wrong), gate=False), report(), 1.0) is None
    mine = read_keys(secret, gate=False)
    secret_key = zmq.curve_keypair()[1]
    stolen = Keys(secret=secret_key, public=zmq.curve_public(secret_key), other=mine.other)  # knows the gate's key only
    assert knock(gate, stolen, report(), 1.0) is None
    assert all(home.read().state == "starting" for home in gate.homes.values())
    assert knock(gate, mine, report()) is not None
    assert gate.homes[1].read().state == "ready"


def test_what_does_not_fit_is_refused_with_the_reason(gate, secret):
    keys = read_keys(secret, gate=False)
    assert "the server waits for 1, 2" in knock(gate, keys, report(7)).reason
    assert "give all nodes the same" in knock(gate, keys, report(version="0.0.0")).reason
    knock(gate, keys, report(1))
    assert "engine 1, which the node at elsewhere has brought" in knock(gate, keys, report(1)).reason


def test_a_node_that_says_nothing_more_is_lost(gate, secret):
    knock(gate, read_keys(secret, gate=False), report())
    deadline = time.monotonic() + 20
    while gate.homes[1].read().state == "ready" and time.monotonic() < deadline:
        time.sleep(0.05)
    status = gate.homes[1].read()
    assert status.state == "restarting"
    assert status.cause == "the node at elsewhere has not been heard for 2 s"


def test_a_gate_listens_at_its_address_only_and_leaves_nothing(secret):
    port = free_port()
    found = Gate("127.0.0.1", port, read_keys(secret, gate=True), (1,))
    homes = found.homes.values()
    with open("/proc/net/tcp") as file:
        listening = [line.split()[1] for line in file.readlines()[1:] if line.split()[3] == "0A"]
    assert [place for place in listening if int(place.split(":")[1], 16) == port] == [f"0100007F:{port:04X}"]
    with pytest.raises(SettingError, match="another --data-parallel-rpc-port"):
        Gate("127.0.0.1", port, read_keys(secret, gate=True), (1,))
    found.close()
    assert not any(home.folder.exists() for home in homes)


def test_a_secret_that_is_none_is_refused_and_never_told(tmp_path):
    path = tmp_path / "secret"
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        read_keys(str(path), gate=True)
    path.write_text("z" * 40)
    path.chmod(0o644)
    with pytest.raises(SettingError, match="chmod 600"):
        read_keys(str(path), gate=True)
    path.chmod(0o600)
    assert "z" * 8 not in repr(read_keys(str(path), gate=True))
    path.write_text("short")
    with pytest.raises(SettingError, match="holds 5 bytes"):
        read_keys(str(path), gate=True)
