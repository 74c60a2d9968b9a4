"""What compiles grammars is there before the first request that needs it, and costs nothing where nobody wants it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.engine.tokenizers_for_tests import byte_level
from tests.grammar.test_grammars import settled, spec
from tests.grammar.toy import choices
from tests.loading.checkpoints import tiny_model, write
from vllm_core import AsyncLLM, SamplingParams
from vllm_core.engine import wire
from vllm_core.engine.grammars import Grammars
from vllm_core.engine.vocabulary import vocabulary_of
from vllm_core.engine.warming import Warming

TOKENIZER = byte_level()
TEXT = SimpleNamespace(tokenizer=TOKENIZER, parsers=None, eos_token_ids=TOKENIZER.eos_token_ids)
VOCABULARY = vocabulary_of(TOKENIZER, TOKENIZER.vocab_size, TOKENIZER.eos_token_ids)


@pytest.fixture
def make():
    made = []

    def build(*backends, text=None, **config):
        found = Grammars(choices(*backends, **config))
        found.backends.opens(text or (lambda: pytest.fail("the tokenizer was read again")), TOKENIZER.vocab_size)
        made.append(found)
        return found

    yield build
    for found in made:
        found.close()


def until(met, seconds=60):
    end = time.monotonic() + seconds
    while not met() and time.monotonic() < end:
        time.sleep(0.02)
    return met()


def process_of(grammars):
    compilers = list(grammars.backends._apart.values())
    return compilers[0]._process if compilers else None


def test_the_best_backend_and_all_processes_are_made_from_the_vocabulary_alone(make):
    grammars = make("Toy", "ToyApart", compile_seconds=20)
    grammars.warm(VOCABULARY, False)
    assert until(lambda: grammars.backends._backends and process_of(grammars) is not None)
    assert [target.partition(":")[2] for target in grammars.backends._backends] == ["Toy"]
    assert settled(grammars, grammars.ask(spec("yes"))).ready


def test_a_request_takes_the_process_that_was_started_ahead(make):
    grammars = make("ToyApart", compile_seconds=20)
    grammars.warm(VOCABULARY, False)
    assert until(lambda: process_of(grammars) is not None)
    process = process_of(grammars)
    assert settled(grammars, grammars.ask(spec("yes"))).ready
    assert process_of(grammars) is process


def test_a_backend_that_cannot_be_made_is_logged_and_the_next_one_is_made(make, caplog):
    grammars = make(("Broken", {}), "ToyApart", compile_seconds=20)
    with caplog.at_level(logging.WARNING):
        grammars.warm(VOCABULARY, False)
        assert until(lambda: process_of(grammars) is not None and caplog.records)
    assert 'grammar backend "broken" (tests 1) cannot be used: AttributeError' in caplog.text
    assert settled(grammars, grammars.ask(spec("yes"))).ready


def test_where_outputs_begin_with_reasoning_the_tokenizer_is_read_as_well(make):
    opened = threading.Event()
    grammars = make("Toy", text=lambda: opened.set() or TEXT)
    grammars.warm(VOCABULARY, True)
    assert opened.wait(60)


def test_asking_does_not_wait_while_the_tokenizer_is_read(make):
    reading, read = threading.Event(), threading.Event()

    def text():
        reading.set()
        assert read.wait(60)
        return TEXT

    grammars = make("Toy", text=text)
    first = grammars.ask(spec("yes"))
    assert reading.wait(60)
    second = grammars.ask(spec("no"))  # in the thread of the engine's loop: it would stand still
    assert not first.done
    read.set()
    assert settled(grammars, first).ready
    assert settled(grammars, second).ready


def test_a_process_that_ended_by_itself_leaves_no_dead_one(make):
    grammars = make("ToyApart", compile_seconds=20)
    grammars.warm(VOCABULARY, False)
    assert until(lambda: process_of(grammars) is not None)
    assert settled(grammars, grammars.ask(spec("yes"))).ready
    process = process_of(grammars)
    process.stdin.close()  # it ends as after a long idle time
    assert until(lambda: process.returncode is not None)  # set by whoever waited for it


# ---- the front's part


class Link:
    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


def told(warming):
    async def run():
        link = Link()
        warming.begin(asyncio.get_running_loop(), link)
        for _ in range(200):
            await asyncio.sleep(0.02)
            if link.sent:
                break
        return link.sent

    return asyncio.run(run())


def test_an_engine_is_told_the_vocabulary_as_the_wire_has_it(monkeypatch):
    monkeypatch.setattr("vllm_core.engine.warming.AFTER", 0.0)
    (message,) = told(Warming(choices("Toy"), TEXT, TOKENIZER.vocab_size))
    assert message.reasons is False
    sent = wire.decode_down(wire.encode(message)).vocabulary
    assert list(sent.token_bytes) == list(VOCABULARY.token_bytes)
    assert (sent.size, sent.stop_ids, sent.special) == (VOCABULARY.size, VOCABULARY.stop_ids, VOCABULARY.special)


@pytest.mark.parametrize("case", ["told not to", "no tokenizer", "no backend"])
def test_nothing_is_told_where_nobody_wants_it(case):
    config = {"warm": case != "told not to"}
    text = TEXT if case != "no tokenizer" else SimpleNamespace(tokenizer=None)
    found = choices("Toy", **config)
    if case == "no backend":
        found = SimpleNamespace(config=found.config, backends={})
    loop = SimpleNamespace(call_later=lambda *arguments: pytest.fail("it wants to tell the engine"))
    Warming(found, text, TOKENIZER.vocab_size).begin(loop, Link())


# ---- a whole engine


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append((stat.parent / "cmdline").read_bytes())
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")
def test_an_engine_in_a_process_of_its_own_is_warm_before_its_first_structured_output(tmp_path):
    pytest.importorskip("vllm_plugin_xgrammar", reason="vllm-plugin-xgrammar is not installed")
    settings = {"dtype": "float32", "max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": 64}

    async def run(llm):
        assert not any(b"grammar_child" in line for line in children(llm.pid))
        await llm.check_health()
        for _ in range(600):
            if any(b"grammar_child" in line for line in children(llm.pid)):
                break
            await asyncio.sleep(0.1)
        params = SamplingParams(max_tokens=20, structured_outputs={"choice": ["yes", "no"]})
        assert any(b"grammar_child" in line for line in children(llm.pid))
        return [output.outputs[0].text async for output in llm.generate("ab", params, stream=False)]

    llm = AsyncLLM(str(write(tmp_path, tiny_model())), **settings)
    try:
        assert asyncio.run(run(llm)) in (["yes"], ["no"])
    finally:
        llm.shutdown()
