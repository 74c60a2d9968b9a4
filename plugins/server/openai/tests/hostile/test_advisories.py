"""Advisories of other engines, replayed where a request is not enough (the others: `testing.cases`)."""

import ast
import asyncio
import contextlib
import os
import re
import time
from pathlib import Path

import pytest
import vllm_plugin_server
from vllm_plugin_server.testing.advisories import ADVISORIES, table
from vllm_plugin_server.testing.cases import all_cases
from vllm_plugin_server.testing.cases.auth import tricks
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.vanish import vanish
from vllm_plugin_server.testing.watch import family
from vllm_plugin_server.testing.wire import address_of

SOURCE = Path(vllm_plugin_server.__file__).parent
ROOT = SOURCE.parents[3]
KINDS = ("set", "test", "static", "absent:")


def test_every_advisory_has_evidence_that_exists():
    replayed = {cve for c in [*all_cases("m"), *tricks(address_of("x"), "k" * 32, "m")] for cve in c.cve}
    for advisory in ADVISORIES:
        kind, _, rest = advisory.evidence.partition(" ")
        assert kind in KINDS, advisory
        if kind == "set":
            assert advisory.id in replayed, f"{advisory.id} is in no case"
        elif kind == "absent:":
            assert rest, advisory
        elif kind == "test" and (ROOT / "vllm_core").is_dir():  # packaged alone, the other tests are not here
            path, _, name = rest.partition("::")
            assert (ROOT / path).exists(), advisory
            assert not name or f"def {name}(" in (ROOT / path).read_text(), advisory


def test_the_page_of_advisories_is_the_tables():
    page = ROOT / "plugins/server/openai/docs/advisories.md"
    if not page.exists() and not (ROOT / "vllm_core").is_dir():
        pytest.skip("packaged alone, the page is not here")
    assert page.read_text() == table()


def test_most_advisories_are_replayed():
    replayed = [a for a in ADVISORIES if a.evidence.split()[0] in ("set", "test", "static")]
    assert len({a.id for a in ADVISORIES}) == len(ADVISORIES)
    assert len(replayed) >= 100


def test_nothing_unsafe_is_imported_or_called():
    """R16, of this package alone; tests/test_house.py does it for all."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            unsafe = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
            assert not unsafe & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), path
                flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert flags.get("shell") != "True", path
                assert flags.get("trust_remote_code") != "True", path


def test_no_assert_guards_what_a_client_sends():
    """Asserts vanish under python -O: of what is served they may state types only, never test a request's values."""
    allowed = re.compile(r"isinstance\(|is not None|is None|False")
    for path in SOURCE.rglob("*.py"):
        if {"testing", "bench"} & set(path.relative_to(SOURCE).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assert):
                assert allowed.search(ast.unparse(node.test)), f"{path}:{node.lineno}"


HOSTILE_TEXT = {
    "open tags": "<tool_call>" * 20_000,
    "an open call": '<tool_call>\n{"name": "f", "arguments": {"a": "' + "x" * 200_000,
    "brackets": "[" * 200_000,
    "nested braces": '{"a":' * 40_000,
    "spaces": "<tool_call>" + " " * 200_000,
    "thoughts": "<think>" * 30_000,
    "python": "[f(a=" * 30_000,
    "backslashes": '<tool_call>{"name": "f", "arguments": "' + "\\" * 100_001,
    "calls of Mistral's": "[TOOL_CALLS]" * 15_000,
}


PARSERS = (
    "vllm_plugin_hermes_tools.parser:HermesToolParser",
    "vllm_plugin_mistral_tools.parser:MistralToolParser",
    "vllm_plugin_think.parser:ThinkTags",
    "vllm_plugin_think.parser:ThinkFirst",
)
PIECE = 50  # characters


class NoTokenizer:
    """Knows no special tokens."""

    def get_added_vocab(self):
        return {}


@pytest.mark.parametrize("target", PARSERS)
@pytest.mark.parametrize("name", list(HOSTILE_TEXT))
def test_parsers_read_hostile_text_in_linear_time(target, name):
    module, _, kind = target.partition(":")
    parser = getattr(pytest.importorskip(module), kind)
    second = {} if "think" in target else []
    text = HOSTILE_TEXT[name]

    def seconds(part):
        whole, streamed = (parser(NoTokenizer(), second) for _ in range(2))
        begin = time.perf_counter()
        whole.parse(part)
        for at in range(0, len(part), PIECE):
            streamed.feed(part[at : at + PIECE], [])
        streamed.finish()
        return time.perf_counter() - begin

    half, all_of_it = seconds(text[: len(text) // 2]), seconds(text)
    # Twice the text takes twice the time; quadratic work takes four times it, and here many seconds.
    assert all_of_it < 1.0 or all_of_it < 3 * half, f"{half:.2f} s, then {all_of_it:.2f} s"


@pytest.mark.slow
def test_a_server_listens_where_it_was_told_and_nowhere_else(server):
    """CVE-2025-30202, -32444, R16: of the server and its children, one socket, on loopback."""
    listening = _listening(server.process.pid)
    assert listening == {("127.0.0.1", server.port)}


@pytest.mark.slow
def test_clients_that_vanish_leave_nothing_behind(server):
    """CVE-2026-9540, R6."""
    address = address_of(server.url)
    report = asyncio.run(vanish(address, Probe(address, "tiny"), drops=64, seed=1))
    assert not report.findings
    assert report.dropped == 64


def _listening(pid):
    """(address, port) of all TCP sockets that a process and its children listen on."""
    inodes = set()
    for one in family(pid):
        for link in Path(f"/proc/{one}/fd").iterdir():
            with contextlib.suppress(OSError):
                if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link)):
                    inodes.add(found[1])
    listening = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                host, port = words[1].split(":")
                shown = ".".join(str(byte) for byte in bytes.fromhex(host)[::-1]) if name == "tcp" else host
                listening.add((shown, int(port, 16)))
    return listening
