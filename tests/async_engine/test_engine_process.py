"""The engine's process and its caller's: whichever ends, the other one knows at once and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.async_engine.helpers import LONG, ROOT, alive, ended, last
from tests.loading.checkpoints import tiny_model, write
from vllm_core import AsyncLLM
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.home import Home
from vllm_core.engine.remote import EngineProcess


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model(max_position_embeddings=4096)))


def test_when_the_process_is_killed_every_caller_gets_one_clear_error_within_a_second(folder):
    llm = AsyncLLM(folder)

    async def ask():
        waiting = [asyncio.create_task(last(llm.generate(f"Number {i}", LONG))) for i in range(5)]
        await asyncio.sleep(0.3)
        os.kill(llm._engine.pid, signal.SIGKILL)
        killed = time.monotonic()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        took = time.monotonic() - killed
        with pytest.raises(EngineDeadError, match="was killed by signal 9"):
            await last(llm.generate("After", LONG))
        return errors, took

    errors, took = asyncio.run(ask())
    assert took < 1
    assert {type(error) for error in errors} == {EngineDeadError}
    assert {str(error) for error in errors} == {f"the engine process (pid {llm._engine.pid}) was killed by signal 9"}
    assert llm.num_requests == 0
    llm.shutdown()


def test_a_shutdown_ends_the_process_and_removes_its_folder(folder):
    llm = AsyncLLM(folder)
    pid, place = llm._engine.pid, llm._engine.home.folder
    assert place.stat().st_mode & 0o077 == 0
    llm.shutdown()
    assert not alive(pid)
    assert not place.exists()
    llm.shutdown()
    with pytest.raises(EngineDeadError, match="shut down"):
        asyncio.run(last(llm.generate("After", LONG)))


def test_a_forgotten_engine_is_ended(folder):
    llm = AsyncLLM(folder)
    pid = llm._engine.pid
    del llm
    assert ended(pid, 6)


PARENT = """
import asyncio, sys, time
from vllm_core import AsyncLLM, SamplingParams
if __name__ == "__main__":
    llm = AsyncLLM(sys.argv[1])
    async def ask():
        async for output in llm.generate("Once", SamplingParams(max_tokens=2000, ignore_eos=True)):
            print(llm._engine.pid, flush=True)
    asyncio.run(ask())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_when_the_caller_ends_the_process_ends(folder, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        text=True,
    )
    pid = int(parent.stdout.readline())
    parent.send_signal(how)
    parent.wait(10)
    parent.stdout.close()
    assert ended(pid, 2)


def test_other_choices_than_the_callers_are_refused_by_digest(folder):
    home = Home.make()
    engine = EngineProcess(home)
    with pytest.raises(EngineDeadError, match="LockMismatch: the engine process made other choices"):
        engine.build(EngineSettings(model=folder), "0" * 64)
    engine.stop()
    home.remove()


def test_what_a_function_of_hf_overrides_changes_reaches_the_process_as_fields(folder):
    def shorter(config):
        config.max_position_embeddings = 77
        return config

    llm = AsyncLLM(folder, hf_overrides=shorter)
    try:
        assert llm.ready.longest == 77
    finally:
        llm.shutdown()


def test_what_fails_while_it_is_built_is_said_and_leaves_no_process(folder, tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        AsyncLLM(folder, kv_cache_memory=1000)
    damaged = Path(write(tmp_path / "damaged", tiny_model()))
    weights = damaged / "model.safetensors"
    settings = EngineSettings(model=str(damaged))
    from vllm_core.engine.resolve import resolve

    digest = resolve(settings).lock.digest
    weights.write_bytes(weights.read_bytes()[:-100])
    home = Home.make()
    engine = EngineProcess(home)
    with pytest.raises(EngineDeadError, match="is cut off"):
        engine.build(settings, digest)
    engine.stop()
    home.remove()
    assert not alive(engine.pid)


def test_a_step_that_fails_ends_the_engine_with_its_reason(folder):
    llm = AsyncLLM(folder)
    # A vocabulary that the engine does not have: the only way past the checks of the intake.
    llm._desk._intake.vocab_size = 10**9

    async def ask():
        with pytest.raises(EngineDeadError, match="a step failed"):
            await last(llm.generate([10**8], LONG))

    asyncio.run(ask())
    assert ended(llm._engine.pid, 5)
    llm.shutdown()
