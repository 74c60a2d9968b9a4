"""`EndpointConformance`: the tests that every HTTP route runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vllm_core.plugin import Endpoint
from vllm_core.plugins import load_catalog, read_policy
from vllm_core.plugins.records import Provided
from vllm_core.testing.checkpoint import save_checkpoint
from vllm_core.testing.endpoint_bodies import faults, no_json, other_values
from vllm_core.testing.kit import Conformance
from vllm_core.testing.plugin_module import assert_imports_light
from vllm_core.testing.server_process import Answer, ServerProcess

__all__ = ["EndpointConformance"]

KEY = "a-key-of-the-kit"
AT_ONCE = 8  # requests
HUGE = 10**12  # bytes, more than any server takes
PATIENCE = 30.0  # seconds; what hangs takes longer on any machine
ERROR = {"message", "type", "param", "code"}


class EndpointConformance(Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed, as must a server.

    path           as it is listed; fill in its parameters in ``url``, if it has any
    method         that is tested
    architecture   of the model that is served, as in config.json "architectures"; a plugin that serves it must be there
    config         fields of transformers' config for a tiny one
    flags          further words of ``vllm-core serve``: the plugin's settings, say
    works          name -> body that is answered with 200 (of GET: the query, "" without one)
    wrong          name -> body that is answered with 400
    cannot         "OpenAI's errors", "JSON": what answers are not; "unknown fields": they are accepted -> why
    """

    kind = "endpoint"
    hook = "http_endpoints"
    subject = "path"

    path: ClassVar[str]
    url: ClassVar[str] = ""
    method: ClassVar[str] = "POST"
    architecture: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    flags: ClassVar[Sequence[str]] = ()
    works: ClassVar[Mapping[str, Any]]
    wrong: ClassVar[Mapping[str, Any]] = {}

    def check(self, name: str, answer: Answer) -> None:
        """Whether the answer to this one of ``works`` is right; override it."""

    # ---- what tests use

    @pytest.fixture(scope="class")
    @classmethod
    def listed(cls) -> Provided:
        found = load_catalog(read_policy({}), import_modules=False).entries("http_endpoints")
        mine = [p for p in found if p.entry.path == cls.path and cls.method in p.entry.methods]
        assert mine, f"no active plugin lists {cls.method} {cls.path}: {', '.join(p.entry.path for p in found)}"
        return mine[0]

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return save_checkpoint(tmp_path_factory.mktemp("endpoint"), cls.architecture, cls.config)

    @pytest.fixture(scope="class")
    @classmethod
    def server(
        cls, listed: Provided, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[ServerProcess]:
        made = ServerProcess(
            checkpoint, [*_flags(), *cls.flags], key=KEY, folder=tmp_path_factory.mktemp("served")
        )  # fmt: skip
        yield made
        made.stop()

    def ask(self, server: ServerProcess, body: Any, **more: Any) -> Answer:
        url = self.url or self.path
        if self.method in ("GET", "DELETE") and not isinstance(body, bytes):
            return server.ask(self.method, f"{url}?{body}" if body else url, **more)
        return server.ask(self.method, url, body, **more)

    def good(self, server: ServerProcess) -> None:
        """It answers as ever."""
        name, body = next(iter(self.works.items()))
        answer = self.ask(server, body)
        assert answer.status == 200, f"after what came before, {name} is answered with {answer}\n{server.log[-2000:]}"

    # ---- the plugin

    def test_the_plugin_module_imports_without_torch(self, listed: Provided) -> None:
        catalog = load_catalog(read_policy({}), import_modules=False)
        assert_imports_light(next(p.module for p in catalog.plugins if p.name == listed.plugin))

    def test_it_says_what_it_is(self, listed: Provided, server: ServerProcess) -> None:
        entry: Endpoint = listed.entry
        assert entry.summary, "a summary is what /openapi.json and reports print of it"
        paths = server.ask("GET", "/openapi.json").json["paths"]
        assert self.method.lower() in paths.get(self.path.replace(":path}", "}"), {}), f"{self.path} is not in {paths}"

    # ---- answers

    def test_it_answers(self, server: ServerProcess) -> None:
        assert self.works, f"{type(self).__name__}.works gives nothing that it answers"
        for name, body in self.works.items():
            answer = self.ask(server, body)
            assert answer.status == 200, f"{name}: {answer}\n{server.log[-2000:]}"
            assert answer.headers.get("x-request-id"), f"{name}: the answer has no id"
            if "JSON" not in self.cannot:
                assert answer.headers["content-type"].split(";")[0] == "application/json"
                assert answer.json is not None
            self.check(name, answer)

    def test_requests_at_once_do_not_meet(self, server: ServerProcess) -> None:
        examples = list(self.works.items()) * AT_ONCE
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(lambda example: self.ask(server, example[1]), examples))
        for (name, _), answer in zip(examples, answers, strict=True):
            assert answer.status == 200, f"{name}, beside others: {answer}"
            self.check(name, answer)

    def test_a_client_that_leaves_leaves_nothing_behind(self, server: ServerProcess) -> None:
        body = next(iter(self.works.values()))
        raw = json.dumps(body).encode() if self.method not in ("GET", "DELETE") else b""
        for _ in range(AT_ONCE):
            server.leave(self.method, self.url or self.path, raw)
        deadline = time.monotonic() + PATIENCE
        while (busy := _busy(server)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not busy, f"{busy} outputs are still computed for clients that left; an ended handler ends what it began"
        self.good(server)

    # ---- who may ask

    def test_the_api_key_guards_it(self, server: ServerProcess) -> None:
        for body in self.works.values():
            for key in ("", "another-key", KEY[:-1], KEY + "x"):
                answer = self.ask(server, body, key=key)
                assert answer.status == 401, f"with the key {key!r}: {answer}"
                self._shaped(answer, "without a key")

    def test_other_methods_are_refused(self, listed: Provided, server: ServerProcess) -> None:
        answer = server.ask("PATCH", self.url or self.path, {})
        assert answer.status == 405, str(answer)
        self._shaped(answer, "PATCH")

    # ---- bad requests

    def test_what_is_wrong_is_told(self, server: ServerProcess) -> None:
        for name, body in self.wrong.items():
            answer = self.ask(server, body)
            assert answer.status == 400, f"{name}: {answer}"
            self._shaped(answer, name)
        self.good(server)

    def test_what_is_no_json_object_is_refused(self, server: ServerProcess) -> None:
        self._has_body()
        for name, raw in no_json():
            answer = self.ask(server, raw)
            assert 400 <= answer.status < 500, f"{name}: {answer}"
            self._shaped(answer, name)
        text = self.ask(server, b"hello", content_type="text/plain")
        assert text.status in (400, 415), f"a body of type text/plain: {text}"
        self.good(server)

    def test_unknown_fields_are_refused_by_name(self, server: ServerProcess) -> None:
        self._has_body()
        self.needs("unknown fields")
        for name, body in self.works.items():
            answer = self.ask(server, {**body, "unheard_of": 1})
            assert answer.status == 400, f"{name} with a field that nobody knows: {answer}"
            assert "unheard_of" in answer.json["error"]["message"], str(answer)

    def test_no_body_is_too_bad_to_answer(self, server: ServerProcess) -> None:
        """Fields left out, of other types, huge, deep: answered or refused, and no accident of the server's."""
        self._has_body()
        for name, body in self.works.items():
            for what, changed in (*faults(body), *other_values(body)):
                answer = self.ask(server, changed)
                assert answer.status < 500, f"{name}, {what}: {answer}\n{server.log[-2000:]}"
                if answer.status >= 400:
                    self._shaped(answer, f"{name}, {what}")
        self.good(server)

    def test_bodies_have_a_limit(self, server: ServerProcess) -> None:
        self._has_body()
        begun = server.announce(self.method, self.url or self.path, HUGE)
        assert begun.startswith(b"HTTP/1.1 413"), f"a body of {HUGE:,} bytes gets {begun[:60]!r}"
        self.good(server)

    # ---- the end

    def test_no_request_was_an_accident(self, server: ServerProcess) -> None:
        """The last test of this server: its log has no traceback."""
        assert "Traceback" not in server.log, server.log[-4000:]

    def test_disabled_by_configuration_it_is_gone(self, listed: Provided, checkpoint: Path, tmp_path: Path) -> None:
        server = ServerProcess(
            checkpoint, [*_flags(), *self.flags, "--plugins-block", f"endpoint:{self.path}"], folder=tmp_path
        )  # fmt: skip
        try:
            answer = self.ask(server, next(iter(self.works.values())))
            assert answer.status == 404, f"blocked, it answers {answer}"
            assert self.path not in server.ask("GET", "/openapi.json").json["paths"]
        finally:
            server.stop()

    def _has_body(self) -> None:
        if self.method in ("GET", "DELETE"):
            pytest.skip(f"{self.method} has no body")

    def _shaped(self, answer: Answer, what: str) -> None:
        """As clients of OpenAI's API read errors."""
        __tracebackhide__ = True
        if "OpenAI's errors" in self.cannot:
            return
        try:
            error = answer.json["error"]
        except (ValueError, KeyError, TypeError):
            raise AssertionError(f'{what}: an error is {{"error": {{"message": ...}}}}, not {answer}') from None
        assert set(error) >= ERROR, f"{what}: the error has {sorted(error)} and lacks {sorted(ERROR - set(error))}"
        assert isinstance(error["message"], str), f"{what}: {answer}"
        assert error["message"], f"{what}: {answer}"


def _flags() -> list[str]:
    commands = load_catalog(read_policy({}), import_modules=False).entries("cli_commands")
    if not any(provided.entry.name == "serve" for provided in commands):
        pytest.skip("no installed plugin has the command serve; a route is tested behind a server")
    return ["--dtype", "float32", "--max-num-seqs", "16", "--no-access-log"]


def _busy(server: ServerProcess) -> int:
    answer = server.ask("GET", "/load")
    return answer.json["running"] + answer.json["waiting"] if answer.status == 200 else 0
