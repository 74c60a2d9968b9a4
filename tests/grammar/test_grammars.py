"""Compiling: off the loop, in time, kept while it is of use."""

from __future__ import annotations

import gc
import json
import signal
import time
from types import SimpleNamespace

import msgspec
import pytest

from tests.engine.tokenizers_for_tests import byte_level
from tests.grammar.toy import choices
from vllm_core.engine import grammar_apart
from vllm_core.engine.grammar_child import Work
from vllm_core.engine.grammars import Grammars
from vllm_core.interfaces.grammar import GrammarSpec


def spec(*texts, **more):
    return GrammarSpec(kind="choice", text=json.dumps(texts), **more)


@pytest.fixture
def make():
    made = []

    def build(*backends, **config):
        found = Grammars(choices(*backends, **config))
        tokenizer = byte_level()
        text = SimpleNamespace(tokenizer=tokenizer, parsers=None, eos_token_ids=tokenizer.eos_token_ids)
        found.backends.opens(lambda: text, tokenizer.vocab_size)
        made.append(found)
        return found

    yield build
    for found in made:
        found.close()


def settled(grammars, entry, seconds=60):
    end = time.monotonic() + seconds
    while not entry.done and time.monotonic() < end:
        grammars.wait(0.05)
    assert entry.done
    return entry


def test_nothing_is_made_before_a_request_needs_it(make):
    grammars = make("Toy")
    assert not grammars._threads
    assert grammars.backends._vocabulary is None


def test_asking_does_not_wait_for_the_compiler(make):
    grammars = make(("Toy", {"seconds": 0.2}))
    began = time.monotonic()
    entry = grammars.ask(spec("yes"))
    assert time.monotonic() - began < 0.1
    assert not entry.done
    assert settled(grammars, entry).ready
    assert grammars.start(spec("yes")).accept([]) == 0


def test_equal_specifications_are_compiled_once(make):
    grammars = make("Toy")
    entry = settled(grammars, grammars.ask(spec("yes")))
    assert grammars.ask(spec("yes")) is entry
    assert settled(grammars, grammars.ask(spec("no"))) is not entry
    (backend,) = grammars.backends._backends.values()
    assert backend.compiled == ['["yes"]', '["no"]']


def test_the_number_of_compiled_grammars_that_nobody_uses_is_bounded(make):
    grammars = make("Toy", cached_grammars=3)
    for i in range(10):
        settled(grammars, grammars.ask(spec(f"text {i}")))
    gc.collect()
    assert len(grammars._recent) == len(grammars._live) == 3


def test_their_size_is_bounded_as_well(make):
    grammars = make("Toy", cached_mib=1, cached_grammars=4096)
    for i in range(1200):
        entry = settled(grammars, grammars.ask(spec(f"text {i}")))
    del entry
    gc.collect()
    assert 800 < len(grammars._live) < 1024  # of 1 KiB each, and their texts


def test_one_that_is_in_use_stays_whatever_was_compiled_since(make):
    grammars = make("Toy", cached_grammars=1)
    held = settled(grammars, grammars.ask(spec("held")))
    for i in range(5):
        settled(grammars, grammars.ask(spec(f"text {i}")))
    assert grammars.ask(spec("held")) is held


def test_what_one_backend_refuses_goes_to_the_next(make):
    grammars = make(("Toy", {"refuses": True}), "Second")
    assert settled(grammars, grammars.ask(spec("yes"))).ready


def test_without_fallback_it_does_not(make):
    grammars = make(("Toy", {"refuses": True}), "Second")
    entry = settled(grammars, grammars.ask(spec("yes", fallback=False)))
    assert entry.error == (
        'structured_outputs: this choice cannot be used: grammar backend "toy" (tests 1): it refuses this'
    )


def test_an_error_names_every_backend_and_its_reason(make):
    grammars = make("Toy", ("Second", {"refuses": True}))
    entry = settled(grammars, grammars.ask(spec("compile raises")))
    assert "\"toy\" (tests 1): KeyError: 'compile'" in entry.error
    assert '"second" (tests 1): it refuses this' in entry.error


def test_a_kind_without_a_backend_says_why(make):
    grammars = make("Toy")
    entry = settled(grammars, grammars.ask(GrammarSpec(kind="regex", text="a")))
    assert entry.error == "nobody here compiles a regex"


def test_what_nobody_waits_for_any_more_is_not_compiled(make):
    grammars = make(("Toy", {"seconds": 0.3}), compile_threads=1)
    first = grammars.ask(spec("first"))
    grammars.ask(spec("second"))  # and whoever asked goes away
    settled(grammars, first)
    settled(grammars, grammars.ask(spec("third")))
    (backend,) = grammars.backends._backends.values()
    assert backend.compiled == ['["first"]', '["third"]']


# ---- in a process apart


def test_a_process_apart_compiles(make):
    grammars = make("ToyApart", compile_seconds=10)
    assert settled(grammars, grammars.ask(spec("yes"))).ready
    assert settled(grammars, grammars.ask(spec("noise"))).ready  # what a library prints is no answer
    entry = settled(grammars, grammars.ask(spec("compile refuses")))
    assert "it refuses this" in entry.error


def test_a_specification_that_takes_too_long_ends_with_its_process_and_the_next_is_compiled(make):
    grammars = make("ToyApart", compile_seconds=0.4)
    settled(grammars, grammars.ask(spec("yes")))  # the process is there
    (compiler,) = grammars.backends._apart.values()
    process = compiler._process
    began = time.monotonic()
    entry = settled(grammars, grammars.ask(spec("hang")))
    assert time.monotonic() - began < 1
    assert "needs more than 0.4 s for it" in entry.error
    assert process.poll() == -9
    assert settled(grammars, grammars.ask(spec("no"))).ready


@pytest.mark.parametrize(("fault", "said"), [("crash", "ended over this specification"), ("all memory", "MemoryError")])
def test_a_crash_or_a_want_of_memory_is_that_specification_s_alone(make, fault, said):
    grammars = make("ToyApart", compile_seconds=20)
    entry = settled(grammars, grammars.ask(spec(fault)))
    assert said in entry.error
    assert settled(grammars, grammars.ask(spec("no"))).ready


def test_a_process_that_ended_while_nobody_needed_it_is_started_again(make):
    grammars = make("ToyApart", compile_seconds=20)
    settled(grammars, grammars.ask(spec("yes")))
    (compiler,) = grammars.backends._apart.values()
    compiler._process.stdin.close()  # it ends as after a long idle time
    compiler._process.wait()
    assert settled(grammars, grammars.ask(spec("no"))).ready


def test_a_process_that_was_killed_is_replaced_before_the_next_specification_although_nobody_has_seen_its_end(
    make, monkeypatch
):
    grammars = make("ToyApart", compile_seconds=20)
    settled(grammars, grammars.ask(spec("yes")))
    (compiler,) = grammars.backends._apart.values()
    monkeypatch.setattr(compiler._process, "poll", lambda: None)  # as while another thread waits for it
    compiler._process.kill()
    compiler._process.wait()
    entry = settled(grammars, grammars.ask(spec("no")))
    assert entry.ready, entry.error


def test_a_process_that_is_killed_as_a_specification_comes_is_replaced(make, monkeypatch):
    grammars = make("ToyApart", compile_seconds=20)
    settled(grammars, grammars.ask(spec("yes")))
    (compiler,) = grammars.backends._apart.values()
    monkeypatch.setattr(grammar_apart, "is_over", lambda pipe: False)  # it lived when it was looked at
    compiler._process.kill()
    compiler._process.wait()
    entry = settled(grammars, grammars.ask(spec("no")))
    assert entry.ready, entry.error


def test_closing_ends_the_process(make):
    grammars = make("ToyApart", compile_seconds=20)
    settled(grammars, grammars.ask(spec("yes")))
    (compiler,) = grammars.backends._apart.values()
    process = compiler._process
    grammars.close()
    assert process.poll() is not None


def test_an_orphan_ends_by_itself_even_while_it_compiles(make):
    """As if the engine had been killed: nobody is there to end the process, and nobody reads its answers."""
    grammars = make("ToyApart", compile_seconds=20)
    settled(grammars, grammars.ask(spec("yes")))
    (compiler,) = grammars.backends._apart.values()
    process = compiler._process
    message = msgspec.msgpack.encode(Work(spec("hang"), 0.2))
    process.stdin.write(len(message).to_bytes(8, "little") + message)
    process.stdin.flush()
    assert process.wait(5) == -signal.SIGALRM


def test_an_orphan_without_work_ends_with_its_parent(make):
    grammars = make("ToyApart", compile_seconds=20)
    settled(grammars, grammars.ask(spec("yes")))
    (compiler,) = grammars.backends._apart.values()
    compiler._process.stdin.close()
    assert compiler._process.wait(5) == 0


def test_who_waits_for_a_process_apart_keeps_nobody_else_waiting(make):
    """The first backend refuses some; what it takes is compiled at once while those wait for the process."""
    grammars = make("Picky", "ToyApart", compile_threads=1, compile_seconds=4)
    slow = [grammars.ask(spec("hang", str(i))) for i in range(3)]
    quick = settled(grammars, grammars.ask(spec("plain")))
    assert quick.ready
    assert not any(entry.done for entry in slow)


def test_what_allows_no_text_is_refused(make):
    grammars = make("Toy")
    entry = settled(grammars, grammars.ask(GrammarSpec(kind="choice", text="[]")))
    assert "it allows no text at all" in entry.error
