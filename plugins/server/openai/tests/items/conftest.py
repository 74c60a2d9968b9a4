"""A live server over an engine that says what it is told to. Parsers, routes, HTTP and clients are the real ones."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn
from vllm_plugin_hermes_tools.parser import HermesToolParser
from vllm_plugin_server import http_endpoints
from vllm_plugin_server.admission import Admission
from vllm_plugin_server.app import make_app
from vllm_plugin_server.settings import ServerSettings
from vllm_plugin_server.work import Work
from vllm_plugin_think.parser import ThinkTags

from vllm_core.engine.parsers import Parsers
from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import (
    CompletionOutput,
    Conversation,
    Logprob,
    Prompt,
    RequestMetrics,
    RequestOutput,
    SamplingParams,
)


class Bytes:
    """A tokenizer: a byte is a token."""

    chat_template = "messages tools enable_thinking reasoning_effort"

    def encode(self, text, add_special_tokens=True):
        return list(text.encode())

    def decode(self, ids, skip_special_tokens=True):
        return bytes(ids).decode("utf-8", "replace")


class ChosenParsers(Parsers):
    """The core's, with parsers that nobody has to look for."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        decision = SimpleNamespace(
            offer=SimpleNamespace(name="chosen", options={}), provided=SimpleNamespace(owner="the tests")
        )
        self._chosen = {"tool_parser": (decision, HermesToolParser), "reasoning_parser": (decision, ThinkTags)}


class ScriptedEngine:
    """Answers ``says``, a few characters at a time.

    pause   seconds between two pieces
    fails   raised after the second piece, or instead of a whole answer
    asked   (prompt's text, parameters) of each request
    """

    def __init__(self):
        self.tokenizer = Bytes()
        self.parsers = ChosenParsers(self.tokenizer)
        self.text = SimpleNamespace(renderer=self.tokenizer)
        self.ready = SimpleNamespace(longest=4096, vocab_size=256)
        self.generation_config = {}
        self.dead, self.running = None, 0
        self.tell()

    def tell(self, says="Hello there.", *, reason="stop", stop=None, pause=0.0, fails=None, cached=0):
        self.says, self.reason, self.stop, self.pause, self.fails = says, reason, stop, pause, fails
        self.cached, self.asked = cached, []

    def get_tokenizer(self):
        return self.tokenizer

    def get_default_sampling_params(self):
        return SamplingParams(max_tokens=None)

    def read_chat(self, messages, *, tools=None, tool_choice=None, chat_template_kwargs=None, **options):
        lines = [f"tools={[t['function']['name'] for t in tools]}"] if tools else []
        lines += [f"{name}={value}" for name, value in sorted((chat_template_kwargs or {}).items())]
        for message in messages:
            shown = [message["content"], message.get("reasoning_content"), message.get("tool_calls")]
            lines.append(f"{message['role']}: " + " | ".join(str(part) for part in shown if part))
        text = "\n".join(lines) + ("" if options.get("continue_final_message") else "\nassistant:")
        read = {"tools": tools, "tool_choice": tool_choice, "chat_template_kwargs": chat_template_kwargs}
        return Conversation(Prompt(text, self.tokenizer.encode(text)), self.parsers.for_chat(read))

    async def generate(self, prompt, params, request_id, *, priority=0, stream=True):
        parsing = prompt.parsing
        params = parsing.prepare(params)
        self.asked.append((prompt.prompt.text, params))
        size = 4 if stream else len(self.says) + 1
        cuts = range(size, len(self.says) + size, size)
        self.running += 1
        try:
            for i, cut in enumerate(cuts):
                await asyncio.sleep(self.pause)
                if self.fails is not None and (i == 2 or not stream):
                    raise self.fails
                text = self.says[:cut]
                ids = list(text.encode())
                over = cut >= len(self.says)
                logprobs = None
                if params.logprobs is not None:
                    logprobs = [{t: Logprob(logprob=-0.5, rank=1, decoded_token=chr(t))} for t in ids]
                completion = CompletionOutput(
                    text=text,
                    token_ids=ids,
                    logprobs=logprobs,
                    finish_reason=self.reason if over else None,
                    stop_reason=self.stop if over else None,
                )
                output = RequestOutput(
                    request_id=request_id,
                    prompt=prompt.prompt.text,
                    prompt_token_ids=prompt.prompt.token_ids,
                    outputs=[completion],
                    finished=over,
                    metrics=RequestMetrics(arrival_time=time.time()),
                    num_cached_tokens=self.cached,
                )
                yield parsing.read(output)
        finally:
            self.running -= 1


class Live:
    """A server in a thread. ``url``; ``context`` is what its routes share."""

    def __init__(self, engine, **settings):
        settings = {"port": 0, "served_model_name": ["scripted"], **settings}
        self.context = ServerContext(
            engine=engine,
            models={"scripted": "base"},
            settings=ServerSettings(**settings),
            report=dict,
            work=Work(2, 10),
            admission=Admission(8),
            started=time.time(),
        )
        wanted = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
        self.made = make_app(self.context, [e for e in http_endpoints() if e.path.startswith(wanted)])
        config = uvicorn.Config(self.made.app, port=0, log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)
        self.context.work.close()


@pytest.fixture(scope="session")
def _engine():
    return ScriptedEngine()


@pytest.fixture
def engine(_engine):
    """The engine of ``live``, told nothing yet."""
    _engine.tell()
    return _engine


@pytest.fixture(scope="session")
def live(_engine):
    server = Live(_engine)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def guarded(_engine):
    """One that wants a key, and keeps little."""
    server = Live(_engine, api_key=["alice-key", "bobs-key"], response_store=3)
    yield server
    server.stop()


@pytest.fixture
def another(engine):
    """Start a server with further settings."""
    started = []

    def start(**settings):
        started.append(Live(engine, **settings))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def eventually():
    """Wait until something holds; False after two seconds."""

    def wait(holds):
        for _ in range(200):
            if holds():
                return True
            time.sleep(0.01)
        return False

    return wait
