"""The kits of policies, tokenizers, renderers, sinks and executors fail wrong ones, in tests that say what is wrong."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import attrs
import msgspec
import pytest
import transformers

from tests.testing.failing import failing
from vllm_core.engine.resolve import resolve
from vllm_core.interfaces.executor import StepError
from vllm_core.runner.inprocess import InProcessExecutor
from vllm_core.testing import (
    ChatRendererConformance,
    ExecutorConformance,
    MetricsSinkConformance,
    SchedulerPolicyConformance,
    TokenizerConformance,
)
from vllm_core.testing.by_hand import ByHand
from vllm_core.testing.executor import STEPS
from vllm_core.testing.executor_end import ENDS
from vllm_core.testing.executor_steps import Running, started, use_folder
from vllm_core.testing.reference import Reference
from vllm_core.testing.speculating import LONGEST, Speculating

# ---- policies


class Policies(SchedulerPolicyConformance):
    policy = "a test's"
    patience = 60.0


class Right:
    """Short prompts first, and nobody waits longer than a minute."""

    def key(self, request):
        return (request.arrival + min(request.prompt_tokens, 50_000) / 1000,)


class WithoutAgeing(Right):
    def key(self, request):
        return (request.prompt_tokens, request.arrival)


class LastComeFirstServed(Right):
    def key(self, request):
        return (-request.arrival, -request.order)


class NotComparable(Right):
    def key(self, request):
        return (float("nan") if request.cached_tokens else 1.0,)


class OfSeveralLengths(Right):
    def key(self, request):
        return (request.arrival, 1.0) if request.output_tokens else (request.arrival,)


class Remembers(Right):
    def __init__(self):
        self.seen = []

    def key(self, request):
        self.seen.append(request.request_id)
        sum(len(name) for name in self.seen)
        return super().key(request)


class Shares(Right):
    seen: ClassVar[list] = []

    def key(self, request):
        self.seen.append(request)
        return (request.arrival + len(self.seen),)


class FailsWhenPreempted(Right):
    def key(self, request):
        if request.output_tokens:
            raise KeyError(request.request_id)
        return super().key(request)


POLICY = {"overlapped": [True, False], "pages": [256, 20]}


def test_a_right_policy_passes(tmp_path):
    assert failing(Policies, {"target": Right}, tmp_path, **POLICY) == set()


@pytest.mark.parametrize(
    ("policy", "test"),
    [
        (WithoutAgeing, "test_nobody_waits_for_ever"),
        (WithoutAgeing, "test_one_that_has_waited_is_answered_before_those_that_keep_coming"),
        (LastComeFirstServed, "test_nobody_waits_for_ever"),
        (NotComparable, "test_keys_are_tuples_of_numbers_that_compare"),
        (OfSeveralLengths, "test_keys_are_tuples_of_numbers_that_compare"),
        (Remembers, "test_a_key_costs_no_more_after_many_requests"),
        (Shares, "test_two_engines_do_not_meet"),
        (FailsWhenPreempted, "test_every_request_is_answered_once_with_the_tokens_of_first_come_first_served"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_policy_fails(policy, test, tmp_path):
    assert test in failing(Policies, {"target": policy}, tmp_path, **POLICY)


# ---- tokenizers


class Tokenizers(TokenizerConformance):
    mode = "a test's"
    special = ("<s>", "</s>")
    vocab_size = 258


class Bytes:
    """Bytes, and two special tokens behind them."""

    vocab_size, eos_token_ids, special = 258, (257,), ("<s>", "</s>")

    def encode(self, text, add_special_tokens=True):
        ids = [256] if add_special_tokens else []
        while text:
            at = min((text.find(s) for s in self.special if s in text), default=len(text))
            ids += text[:at].encode()
            found = next((i for i, s in enumerate(self.special) if text.startswith(s, at)), None)
            ids += [] if found is None else [256 + found]
            text = text[at + (0 if found is None else len(self.special[found])) :]
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens=True):
        text, run = "", bytearray()
        for i in ids:
            if i < 256:
                run.append(i)
                continue
            text, run = text + run.decode(errors="replace"), bytearray()
            if i < self.vocab_size and not skip_special_tokens:
                text += self.special[i - 256]
        return text + run.decode(errors="replace")


class Strips(Bytes):
    def encode(self, text, add_special_tokens=True):
        return super().encode(text.strip(), add_special_tokens)


class KeepsSpecialTokens(Bytes):
    def decode(self, ids, skip_special_tokens=True):
        return super().decode(ids, False)


class HidesHalfCharacters(Bytes):
    """Nobody can tell that more is to come."""

    def decode(self, ids, skip_special_tokens=True):
        return super().decode(ids, skip_special_tokens).replace("\ufffd", "?")


class IsStrict(Bytes):
    def decode(self, ids, skip_special_tokens=True):
        text = super().decode(ids, skip_special_tokens)
        if "\ufffd" in text:
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "half a character")
        return text


class KnowsNoOthers(Bytes):
    def decode(self, ids, skip_special_tokens=True):
        if any(i >= self.vocab_size for i in ids):
            raise IndexError("no such id")
        return super().decode(ids, skip_special_tokens)


class PutsASpaceInFront(Bytes):
    """As some do, in every call and not only at the beginning of a text."""

    def decode(self, ids, skip_special_tokens=True):
        return "".join(f" {super(PutsASpaceInFront, self).decode([i], skip_special_tokens)}" for i in ids)


class CountsWrongly(Bytes):
    vocab_size = 260


class IsQuadratic(Bytes):
    def encode(self, text, add_special_tokens=True):
        whole = super().encode(text, add_special_tokens)
        for i in range(0, len(text), 50):
            super().encode(text[:i])
        return whole


def test_a_right_tokenizer_passes(tmp_path):
    assert failing(Tokenizers, {"tokenizer": Bytes()}, tmp_path) == set()


@pytest.mark.parametrize(
    ("tokenizer", "test"),
    [
        (Strips, "test_texts_come_back"),
        (KeepsSpecialTokens, "test_special_tokens_are_left_out_on_demand"),
        (KeepsSpecialTokens, "test_the_ends_of_text_are_special_tokens_of_the_vocabulary"),
        (HidesHalfCharacters, "test_streams_give_what_the_whole_gives_from_every_cut"),
        (IsStrict, "test_every_id_has_a_text"),
        (IsStrict, "test_random_ids_stream_as_they_read"),
        (KnowsNoOthers, "test_ids_beyond_the_vocabulary_have_none"),
        (PutsASpaceInFront, "test_texts_come_back"),
        (CountsWrongly, "test_the_vocabulary_has_its_size"),
        (IsQuadratic, "test_the_work_grows_with_the_text_and_no_faster"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_tokenizer_fails(tokenizer, test, tmp_path):
    assert test in failing(Tokenizers, {"tokenizer": tokenizer()}, tmp_path)


# ---- chat renderers


class Renderers(ChatRendererConformance):
    renderer = "a test's"
    roles = ("system", "user", "assistant", "tool")


class Lines:
    def render(self, messages, *, tools=None, add_generation_prompt=None, continue_final_message=False, **options):
        if options:
            raise ValueError(f"no option {', '.join(options)}")
        if not isinstance(messages, list) or not messages:
            raise ValueError("no messages")
        lines = [f"tools {json.dumps(tools)}\n"] if tools else []
        lines += [self.line(m) for m in messages]
        if continue_final_message:
            return "".join(lines).removesuffix("\n")
        return "".join(lines) + ("assistant: " if add_generation_prompt is not False else "")

    def line(self, m):
        if not isinstance(m, dict) or m.get("role") not in Renderers.roles:
            raise ValueError(f"a message without a role that is known: {m!r:.80}")
        text = self.text(m.get("content"))
        calls = "".join(json.dumps(call["function"]) for call in m.get("tool_calls") or ())
        return f"{m['role']}: {text}{calls}\n"

    def text(self, content):
        if isinstance(content, list):
            if not all(isinstance(p, dict) and p.get("type") == "text" and "text" in p for p in content):
                raise ValueError("a part that is no text")
            return "\n".join(p["text"] for p in content)
        if not isinstance(content, str | None):
            raise ValueError("a content that is no text")
        return content or ""


class IgnoresTools(Lines):
    def render(self, messages, *, tools=None, **options):
        return super().render(messages, **options)


class IgnoresOptions(Lines):
    def render(self, messages, **options):
        known = ("tools", "add_generation_prompt", "continue_final_message")
        return super().render(messages, **{k: v for k, v in options.items() if k in known})


class OnlyTheLast(Lines):
    def render(self, messages, **options):
        return super().render(messages[-1:] if isinstance(messages, list) else messages, **options)


class NoRoles(Lines):
    def line(self, m):
        return "x: " + super().line(m).partition(": ")[2]


class ChangesMessages(Lines):
    def line(self, m):
        line = super().line(m)
        m["content"] = self.text(m.get("content")) + "!"
        return line


class NeverAsks(Lines):
    def render(self, messages, **options):
        return super().render(messages, **{**options, "add_generation_prompt": False})


class TakesAnyPart(Lines):
    def text(self, content):
        return str(content)


def render_failing(made, folder):
    wrong = [[], "text", None, ["text"], [{"content": "a"}], [{"role": 3, "content": "a"}]]
    return failing(Renderers, {"made": made}, folder, messages=wrong)


def test_a_right_renderer_passes(tmp_path):
    assert render_failing(Lines(), tmp_path) == set()


@pytest.mark.parametrize(
    ("renderer", "test"),
    [
        (IgnoresTools, "test_tools_are_told_or_refused"),
        (IgnoresOptions, "test_options_that_it_does_not_read_are_refused"),
        (IgnoresOptions, "test_a_slip_in_an_option_is_refused"),
        (OnlyTheLast, "test_every_message_is_in_the_prompt_in_its_place"),
        (NoRoles, "test_roles_are_told_apart"),
        (ChangesMessages, "test_messages_are_left_as_they_are"),
        (NeverAsks, "test_the_answer_begins_behind_the_generation_prompt"),
        (TakesAnyPart, "test_contents_of_text_parts_are_texts"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_renderer_fails(renderer, test, tmp_path):
    assert test in render_failing(renderer(), tmp_path)


# ---- metrics sinks


class Sinks(MetricsSinkConformance):
    sink = "a test's"

    @classmethod
    def configure(cls, folder: Path):
        return {"path": folder / "lines"}

    @classmethod
    def received(cls, folder: Path):
        return (folder / "lines").read_text()

    @classmethod
    def unreachable(cls, folder: Path):
        os.mkfifo(folder / "pipe")
        return {"path": folder / "pipe"}


class Keeps:
    """Right: all is kept until the end, and written in a thread that nobody waits for long."""

    def __init__(self, path):
        self.path, self.records = path, []

    def step(self, stats):
        self.records.append(stats)

    def request(self, stats):
        self.records.append(stats)

    def write(self):
        with open(self.path, "a") as file:
            file.writelines(json.dumps(attrs.asdict(record)) + "\n" for record in self.records)

    def close(self):
        thread = threading.Thread(target=self.write, daemon=True)
        thread.start()
        thread.join(0.9)


class WaitsForReaders(Keeps):
    def step(self, stats):
        with open(self.path, "a") as file:
            file.write(json.dumps(attrs.asdict(stats)) + "\n")


class ForgetsTheRest(Keeps):
    def close(self):
        self.records = self.records[: len(self.records) // 2]
        super().close()


class LeavesAThread(Keeps):
    def close(self):
        super().close()
        threading.Thread(target=threading.Event().wait, daemon=True, name="left").start()


class LeavesAFile(Keeps):
    kept: ClassVar[list] = []

    def close(self):
        super().close()
        if self.path.is_file():
            self.kept.append(open(self.path))  # noqa: SIM115


class StumblesOverNone(Keeps):
    def request(self, stats):
        super().request(attrs.evolve(stats, queued=stats.queued + 0.0))


def test_a_right_sink_passes(tmp_path):
    unasked = "test_it_offers_itself_where_it_is_configured_and_nowhere_else"  # nothing is installed here
    assert failing(Sinks, {"make": lambda settings: Keeps(**settings)}, tmp_path) <= {unasked}


@pytest.mark.parametrize(
    ("sink", "test"),
    [
        (ForgetsTheRest, "test_what_was_buffered_is_sent_at_the_end"),
        (LeavesAThread, "test_nothing_is_left_when_it_is_closed"),
        (LeavesAFile, "test_nothing_is_left_when_it_is_closed"),
        (StumblesOverNone, "test_every_value_of_every_record_arrives"),
        (WaitsForReaders, "test_calls_return_though_nobody_takes_what_is_sent"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_sink_fails(sink, test, tmp_path, monkeypatch):
    monkeypatch.setattr("vllm_core.testing.metrics_sink.PATIENCE", 2.0)
    with pytest.raises((Exception, pytest.fail.Exception)):
        getattr(Sinks(), test)(lambda settings: sink(**settings), tmp_path)


# ---- executors


class Executors(ExecutorConformance):
    executor = "in-process"
    architecture = "LlamaForCausalLM"
    device = "cpu"
    config: ClassVar = {
        "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip


class Waits(InProcessExecutor):
    def launch(self, plan):
        pending = super().launch(plan)
        with suppress(Exception):
            pending.result()
        return pending


class LosesTheCause(InProcessExecutor):
    def launch(self, plan):
        pending = super().launch(plan)

        def result(timeout=None):
            try:
                return pending.result(timeout)
            except StepError as error:
                raise StepError(error.step, "something went wrong") from None

        return SimpleNamespace(done=pending.done, result=result)


class GoesOn(InProcessExecutor):
    def launch(self, plan):
        self._failed = None
        return super().launch(plan)


class MixesSteps(InProcessExecutor):
    """The tokens of the step before it."""

    last = None

    def launch(self, plan):
        pending, before = super().launch(plan), self.last
        self.last = pending

        def result(timeout=None):
            found = pending.result(timeout)
            if before is not None and plan.step % 4 == 3:
                return msgspec.structs.replace(found, token_ids=before.result().token_ids)
            return found

        return SimpleNamespace(done=pending.done, result=result)


class LeavesAThreadBehind(InProcessExecutor):
    def start(self):
        threading.Thread(target=threading.Event().wait, daemon=True, name="left").start()
        return super().start()


class LeavesATemporaryFile(InProcessExecutor):
    def start(self):
        os.close(tempfile.mkstemp()[0])
        return super().start()


class LeavesMemory(InProcessExecutor):
    def start(self):
        (Path("/dev/shm") / f"vllm-core-test-{os.getpid()}-{id(self)}").write_bytes(b"left")
        return super().start()


class StartsAgain(InProcessExecutor):
    def start(self):
        self._begun = False
        return super().start()


class OfItsOwn(Executors):
    """Less what chooses an executor for itself."""

    test_an_engine_gives_the_tokens_of_one_in_this_process = None
    test_the_plain_loop_gives_them_too = None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    reference = Reference(transformers.LlamaForCausalLM, Executors.config)
    reference.save(folder)
    return Speculating(folder, "", {}, "cpu", reference.vocab_size)


@pytest.fixture(scope="module")
def plain(model):
    executor = InProcessExecutor(resolved(model).build)
    with started(executor) as capacity:
        own = Running(executor, ByHand(capacity, LONGEST), model.vocab_size)
        rows = own.fresh()
        return [executor.launch(own.hand.plan(rows)).result(60) for _ in range(STEPS)]


def resolved(model):
    return resolve(model.settings(0, distributed_executor_backend="in-process"))


@pytest.fixture
def given(model, plain, tmp_path, monkeypatch):
    """``given(executor)``: what the kit's tests take, with this class where the in-process executor is chosen."""
    use_folder(monkeypatch, tmp_path)
    monkeypatch.setattr("vllm_core.testing.executor_end.PATIENCE", 2.0)
    running = []

    def put(executor):
        def make():
            found = resolved(model)
            return executor(found.build), found

        running.append(make()[0])
        own = Running(running[0], ByHand(running[0].start(), LONGEST), model.vocab_size)
        return {"tiny": model, "make": make, "plain": plain, "warm": None, "quiet": None, "running": own}

    yield put
    for executor in running:
        executor.stop()
    for left in Path("/dev/shm").glob(f"vllm-core-test-{os.getpid()}-*"):
        left.unlink()


def test_a_right_executor_passes(given, tmp_path, monkeypatch):
    all_given = {**given(InProcessExecutor), "monkeypatch": monkeypatch}
    assert failing(OfItsOwn, all_given, tmp_path, end=list(ENDS)) == set()


@pytest.mark.parametrize("executor", [Waits, MixesSteps])
def test_an_executor_that_waits_or_mixes_steps_fails(executor, given):
    found = given(executor)
    with pytest.raises(AssertionError):
        Executors().test_steps_in_flight_give_what_one_at_a_time_gives(found["running"], found["plain"])


@pytest.mark.parametrize(
    ("executor", "end"),
    [
        (LosesTheCause, "a step that fails"),
        (GoesOn, "a step that fails"),
        (StartsAgain, "at rest"),
        (LeavesAThreadBehind, "steps in flight"),
        (LeavesATemporaryFile, "a start that fails"),
        (LeavesMemory, "at rest"),
    ],
)
def test_an_executor_that_ends_wrongly_fails(executor, end, given):
    found = given(executor)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        Executors().test_stop_leaves_nothing(found["make"], None, found["tiny"], end, None)
