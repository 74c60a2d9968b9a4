"""The kits of endpoints, commands and platforms fail wrong ones, in tests that say what is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from types import SimpleNamespace
from typing import ClassVar

import attrs
import pytest

from tests.testing.failing import failing
from vllm_core.cli.parser import Parser
from vllm_core.plugin import Offer
from vllm_core.runner.platforms import CpuPlatform
from vllm_core.testing import CommandConformance, EndpointConformance, PlatformConformance
from vllm_core.testing.checkpoint import save_checkpoint
from vllm_core.testing.server_process import ServerProcess

LLAMA = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


# ---- endpoints: all wrong ones in one plugin, behind one server

WRONG = '''
"""Routes that are wrong, each in its own way."""

import asyncio
import json

import msgspec
from starlette.responses import JSONResponse, PlainTextResponse
from vllm_core.plugin import Endpoint, hookimpl

HOOK_API = 1
NAMES = ("right", "accident", "anything", "shape", "mixed")


@hookimpl
def http_endpoints():
    return [Endpoint(f"/wrong/{name}", f"vllm_plugin_wrong:{name}", ("POST",), name) for name in NAMES]


class Body(msgspec.Struct):
    text: str


def right(context):
    from vllm_plugin_server.api import read_body

    async def handle(request):
        return JSONResponse({"text": (await read_body(request, Body, context)).text})

    return handle


def accident(context):
    async def handle(request):
        return JSONResponse({"text": "" + json.loads(request.state.body)["text"]})

    return handle


def anything(context):
    async def handle(request):
        try:
            return JSONResponse({"text": str(json.loads(request.state.body).get("text"))})
        except (ValueError, AttributeError):
            return JSONResponse({"text": ""})

    return handle


def shape(context):
    async def handle(request):
        try:
            return JSONResponse({"text": msgspec.json.decode(request.state.body, type=Body).text})
        except (msgspec.MsgspecError, ValueError):
            return PlainTextResponse("wrong", 400)

    return handle


def mixed(context):
    last = {}

    async def handle(request):
        last.update(json.loads(request.state.body))
        await asyncio.sleep(0.05)
        return JSONResponse({"text": last["text"]})

    return handle
'''


class Routes(EndpointConformance):
    path = "/wrong/right"
    works: ClassVar = {"a": {"text": "a"}, "b": {"text": "b"}}
    wrong: ClassVar = {"no text": {}}

    def check(self, name, answer):
        assert answer.json == {"text": name}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("vllm_plugin_server")
    site = tmp_path_factory.mktemp("site")
    site.joinpath("vllm_plugin_wrong.py").write_text(WRONG)
    info = site / "vllm_plugin_wrong-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: vllm-plugin-wrong\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text("[vllm_core.plugins]\nwrong = vllm_plugin_wrong\n")
    model = save_checkpoint(tmp_path_factory.mktemp("model"), "LlamaForCausalLM", LLAMA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, sys.path)]))
        server = ServerProcess(model, ["--dtype", "float32"], key="a-key-of-the-kit", folder=site)
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tests"),
    [
        ("right", set()),
        ("accident", {"test_what_is_wrong_is_told", "test_no_body_is_too_bad_to_answer"}),
        ("anything", {"test_what_is_no_json_object_is_refused", "test_unknown_fields_are_refused_by_name"}),
        ("shape", {"test_what_is_wrong_is_told", "test_unknown_fields_are_refused_by_name"}),
        ("mixed", {"test_requests_at_once_do_not_meet"}),
    ],
)
def test_a_wrong_endpoint_fails(name, tests, served, tmp_path):
    kit = type("Kit", (Routes,), {"path": f"/wrong/{name}", "test_no_request_was_an_accident": None})
    failed = failing(kit, {"server": served}, tmp_path)
    assert failed >= tests
    assert bool(failed) == bool(tests)


# ---- commands


class Count:
    """Right: the core's own parser and manners do the rest."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--number", type=int, default=1, help="a number")

    def run(self, args: argparse.Namespace) -> int:
        if args.number < 0:
            raise ValueError("--number is negative")
        print(args.number)
        return 0


class SaysNothingOfIt(Count):
    def add_arguments(self, parser):
        parser.add_argument("--number", type=int, default=1)


def test_an_argument_without_a_text_fails(tmp_path):
    for command, wrong in ((Count, False), (SaysNothingOfIt, True)):
        parser = Parser(prog="vllm-core count")
        command().add_arguments(parser)
        failed = failing(CommandConformance, {"parser": parser}, tmp_path)
        assert ("test_every_argument_says_what_it_is_for" in failed) == wrong


class Answers:
    """What a command said, without running one."""

    def __init__(self, code, err="", out=""):
        self.code, self.err, self.out = code, err, out


@pytest.mark.parametrize(
    ("answer", "fails"),
    [
        (Answers(2, "vllm-core count: --numbrex is not known; did you mean --number?"), False),
        (Answers(1, "vllm-core count: --numbrex is not known; did you mean --number?"), True),
        (Answers(2, "vllm-core count: --numbrex is not known"), True),
        (Answers(2, "Traceback (most recent call last): --numbrex --number"), True),
        (Answers(2, ""), True),
    ],
    ids=["right", "another code", "no hint", "a traceback", "nothing"],
)
def test_a_flag_that_is_refused_wrongly_fails(answer, fails, tmp_path):
    parser = Parser(prog="vllm-core count")
    Count().add_arguments(parser)
    kit = type("Kit", (CommandConformance,), {"run": lambda self, folder, *words: answer})
    failed = "test_an_unknown_flag_is_refused_with_the_nearest" in failing(kit, {"parser": parser}, tmp_path)
    assert failed == fails


@pytest.mark.parametrize(
    ("kinds", "test"),
    [
        ({"works": Answers(1, "no")}, "test_it_works"),
        ({"works": Answers(0, "Traceback")}, "test_it_works"),
        ({"fails": Answers(0)}, "test_what_does_not_work_ends_with_one_and_a_message"),
        ({"fails": Answers(1)}, "test_what_does_not_work_ends_with_one_and_a_message"),
        ({"wrong": Answers(1, "no")}, "test_what_is_asked_wrongly_ends_with_two_and_a_message"),
        ({"wrong": Answers(2, "Traceback")}, "test_what_is_asked_wrongly_ends_with_two_and_a_message"),
    ],
)
def test_wrong_exit_codes_and_tracebacks_fail(kinds, test, tmp_path):
    right = {"works": Answers(0), "fails": Answers(1, "it did not work"), "wrong": Answers(2, "not so")}
    answers = {**right, **kinds}
    words = {kind: {"example": [kind]} for kind in answers}
    kit = type("Kit", (CommandConformance,), {**words, "run": lambda self, folder, word: answers[word]})
    # These run the command themselves.
    left = dict.fromkeys(("test_a_reader_that_leaves_is_no_accident", "test_its_help_needs_no_torch"))
    assert failing(type("Kit", (kit,), left), {}, tmp_path) == {test}


# ---- platforms


class Platforms(PlatformConformance):
    platform = "cpu"
    architecture = "LlamaForCausalLM"
    config = LLAMA


class Changes(CpuPlatform):
    asked = 0

    def facts(self):
        Changes.asked += 1
        return attrs.evolve(super().facts(), name=f"a device {Changes.asked}")


class PromisesTooMuch(CpuPlatform):
    def cache_memory(self, taken):
        return 2 * self.facts().memory


class LargerForLarger(CpuPlatform):
    def token_budget(self, parameters):
        return 64 + parameters // 10**9


class Elsewhere(CpuPlatform):
    def facts(self):
        return attrs.evolve(super().facts(), type="cuda")


class NoSuchDtype(CpuPlatform):
    def dtypes(self):
        return ("bfloat16",)


class HalfAStream(CpuPlatform):
    def stream(self):
        return object()


@pytest.mark.parametrize(
    ("platform", "test"),
    [
        (CpuPlatform, ""),
        (Changes, "test_facts_are_whole_and_do_not_change"),
        (PromisesTooMuch, "test_the_cache_gets_what_is_there_and_no_more"),
        (LargerForLarger, "test_defaults_are_numbers_that_start_an_engine"),
        (Elsewhere, "test_every_rank_of_this_host_has_its_device"),
        (NoSuchDtype, "test_every_dtype_is_computed_in"),
        (HalfAStream, "test_streams_and_events_are_there_or_work_is_done_when_called"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_platform_fails_where_it_is_wrong(platform, test, tmp_path):
    assert failing(Platforms, {"made": platform(), "target": platform}, tmp_path) == ({test} if test else set())


@pytest.mark.parametrize(
    ("answers", "test"),
    [
        ({"auto": None}, "test_it_is_taken_unasked_only_if_it_says_so"),
        ({"unheard-of-by-anybody": "cpu"}, "test_its_hook_offers_it_by_name_and_is_silent_on_other_names"),
        ({"cpu": None}, "test_its_hook_offers_it_by_name_and_is_silent_on_other_names"),
    ],
)
def test_a_platform_that_offers_itself_wrongly_fails(answers, test, tmp_path):
    right = {"cpu": "cpu", "auto": "cpu", "unheard-of-by-anybody": None}

    def answer(query):
        name = {**right, **answers}[query.name]
        return name and Offer(name=name, target="vllm_core.runner.platforms:CpuPlatform")

    with pytest.raises(AssertionError):
        getattr(Platforms(), test)(SimpleNamespace(answer=answer))
