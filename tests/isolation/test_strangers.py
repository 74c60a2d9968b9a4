"""Strangers' wheels, installed by pip in a fresh environment: the command line and engines of several processes go on.

`strangers.STRANGERS` says what is wrong with each; `owl`, a model, is right. Nothing is fetched: wheels are built from
source here, and what the core declares is what is installed on this machine. How plugins fail inside one process is in
tests/third_party and tests/plugins.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.isolation.conftest import STRANGER, THIRD_PARTY
from tests.isolation.environment import OFFLINE, Environment, build_wheel, link, pip
from tests.isolation.strangers import STRANGERS, write_stranger
from tests.packages import ROOT, core
from tests.third_party.owl_oracle import CONFIG, Owl, save_owl

QUARANTINED = {name: stranger for name, stranger in STRANGERS.items() if stranger.says}
PROMPT = [(7 * i * i + 3) % CONFIG["vocab_size"] for i in range(23)]
TOKENS = 8
SCRIPT = """
import asyncio, json, os, signal, subprocess, sys, time
from vllm_core import LLM, AsyncLLM, SamplingParams
PROMPT, TOKENS = json.loads(sys.argv[1])
GREEDY = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)

async def ask(llm):
    async for output in llm.generate({"prompt_token_ids": PROMPT}, GREEDY):
        pass
    return output.outputs[0].token_ids
"""
TWO_PROCESSES = (
    SCRIPT
    + """
if __name__ == "__main__":
    llm = AsyncLLM(sys.argv[2], skip_tokenizer_init=True)
    tokens = asyncio.run(ask(llm))
    pid = llm.pid
    llm.shutdown()
    print(json.dumps({"tokens": tokens, "here": os.getpid(), "engine": pid}))
"""
)
RANKS = (
    SCRIPT
    + """
if __name__ == "__main__":
    llm = LLM(sys.argv[2], skip_tokenizer_init=True, distributed_executor_backend="mp", tensor_parallel_size=2)
    (output,) = llm.generate([{"prompt_token_ids": PROMPT}], GREEDY, use_tqdm=False)
    llm.shutdown()
    print(json.dumps({"tokens": output.outputs[0].token_ids}))
"""
)
# An engine runs; another one with ranks is resolved; then a plugin is upgraded on disk; then processes start.
UPGRADED = (
    SCRIPT
    + """
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.build import start_executor
from vllm_core.engine.resolve import resolve

async def dead(llm):
    os.kill(llm.pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while llm.dead is None and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return str(llm.dead)

async def run(llm):
    said = {"tokens": await ask(llm)}
    settings = dict(model=sys.argv[2], skip_tokenizer_init=True, distributed_executor_backend="mp")
    resolved = resolve(EngineSettings(**settings, tensor_parallel_size=2))
    subprocess.run(json.loads(sys.argv[3]), check=True, stdout=sys.stderr)
    try:
        start_executor(resolved)
    except Exception as error:
        said["ranks"] = f"{type(error).__name__}: {error}"
    return {**said, "engine": await dead(llm)}

if __name__ == "__main__":
    llm = AsyncLLM(sys.argv[2], skip_tokenizer_init=True, restarts=1)
    said = asyncio.run(run(llm))
    llm.shutdown(now=True)
    print(json.dumps(said))
"""
)


@pytest.fixture(scope="module")
def make(wheel_of, tmp_path_factory):
    """``make(*wheels)``: an environment with the core and these, and what the core declares."""

    def environment(*wheels) -> Environment:
        folder = tmp_path_factory.mktemp("strangers")
        made = Environment(folder, [wheel_of(ROOT), *wheels], link(THIRD_PARTY(core().requirements), folder / "lib"))
        made.environ["NOTES"] = str(folder / "notes")
        return made

    return environment


@pytest.fixture(scope="module")
def run(make, wheel_of, tmp_path_factory):
    """All strangers beside the owl."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    folders = [write_stranger(source, name) for name in STRANGERS]
    pip("wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", wheels, *folders)
    return make(wheel_of(STRANGER), *wheels.glob("*.whl"))


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    return save_owl(tmp_path_factory.mktemp("tiny-owl"))


@pytest.fixture(scope="module")
def expected(owl):
    tokens, margin = Owl(owl).greedy(PROMPT, TOKENS)
    assert margin > 1e-4, "this seed has a tie, which proves nothing"
    return tokens


@pytest.fixture(scope="module")
def listed(run):
    """What ``plugins list`` prints, and its rows by distribution."""
    text, rows = run("vllm-core", "plugins", "list"), run("vllm-core", "plugins", "list", "--json")
    assert (text.code, rows.code) == (0, 0), text.err + rows.err
    return text.out, {row["distribution"]: row for row in json.loads(rows.out)}


def answer(run, script, *words, **environ):
    done = run("python", "-c", script, json.dumps([PROMPT, TOKENS]), *words, **environ)
    assert done.code == 0, done.err[-3000:]
    return json.loads(done.out.splitlines()[-1])


@pytest.mark.parametrize("name", QUARANTINED)
def test_a_broken_stranger_is_listed_with_the_reason_and_the_remedy(listed, name):
    row, stranger = listed[1][f"stranger-{name}"], STRANGERS[name]
    assert (row["state"], row["version"], row["remedy"]) == ("quarantined", "1.0", stranger.remedy or row["remedy"])
    assert stranger.says in row["reason"]
    assert len(row["reason"]) < 2100
    assert row["remedy"]


def test_the_others_and_the_core_are_active(listed):
    states = {
        name: row["state"] for name, row in listed[1].items() if name.removeprefix("stranger-") not in QUARANTINED
    }
    assert states == dict.fromkeys(states, "active")
    assert {"vllm-core", "vllm-plugin-owl", "stranger-slow", "stranger-shadow"} <= set(states)


def test_no_control_character_of_a_stranger_reaches_the_terminal(run, listed):
    text = listed[0]
    for row in listed[1].values():
        shown = run("vllm-core", "plugins", "show", row["distribution"])
        assert (shown.code, shown.err) == (0, "")
        text += shown.out
    text += run("vllm-core", "--help").out
    assert {c for c in text if not c.isprintable()} == {"\n"}


def test_a_known_plugin_is_not_imported_to_be_listed(run, listed):
    file = Path(run.environ["NOTES"])
    notes = file.read_text().splitlines()
    assert notes
    assert [line for line in notes if "vllm_core.plugins.probe" not in line] == []
    assert run("vllm-core", "plugins", "list").code == 0
    assert file.read_text().splitlines() == notes


def test_an_answer_comes_all_the_same(run, owl, listed):
    done = run("vllm-core", "complete", owl, "hoo hoo", "--max-tokens", "4", "--temperature", "0")
    assert done.code == 0, done.err
    assert done.err.count(" is quarantined: ") == len(QUARANTINED)
    assert "\x1b" not in done.err


def test_the_cores_own_names_cannot_be_taken(run, owl, listed):
    words = ("vllm-core", "complete", owl, "hoo", "-q", "--max-tokens", "2", "--attention-backend", "reference")
    assert "the stranger's command" not in run(*words).out
    both = run(*words, SHADOW="1")
    assert (both.code, both.out) == (1, "")
    assert "vllm-core 0.1.0" in both.err
    assert "stranger-shadow 1.0" in both.err
    settled = run(*words, "--prefer", '{"attention_backend": ["vllm-core"]}', SHADOW="1")
    assert settled.code == 0, settled.err
    assert run("vllm-core", "stranger").out == "the stranger's command\n"


def test_an_engine_in_another_process_gives_the_tokens_of_the_oracle(run, owl, expected, listed):
    said = answer(run, TWO_PROCESSES, owl)
    assert said["tokens"] == expected
    assert said["engine"] != said["here"]


@pytest.mark.parametrize(
    ("process", "script", "who"),
    [
        ("vllm_core.engine.process", TWO_PROCESSES, "the engine process made other choices than its caller."),
        ("vllm_core.worker", RANKS, "a rank's process made other choices than the engine."),
    ],
)
def test_a_plugin_that_answers_otherwise_in_a_worker_is_refused_by_the_lock(run, owl, listed, process, script, who):
    """What is registered there counts only as far as it is the same."""
    done = run("python", "-c", script, json.dumps([PROMPT, TOKENS]), owl, CHAMELEON=process)
    assert done.code == 1
    assert who in done.err
    assert "stranger-chameleon 1.0" in done.err


def test_a_plugin_that_only_the_parent_knows_does_not_reach_the_engine(run, owl, listed, tmp_path):
    """No registry is inherited: the parent offers what only its own ``sys.path`` has."""
    info = tmp_path / "private-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: private\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text("[vllm_core.plugins]\nprivate = private_plugin\n")
    source = STRANGERS["chameleon"].source.replace('"chameleon"', '"private"').replace("CHAMELEON", "PRIVATE")
    tmp_path.joinpath("private_plugin.py").write_text(source)
    script = f"import sys; sys.path.append({str(tmp_path)!r})\n{TWO_PROCESSES}"
    done = run("python", "-c", script, json.dumps([PROMPT, TOKENS]), owl, PRIVATE="-c")
    assert done.code == 1
    assert "LockMismatch: the engine process made other choices than its caller." in done.err


def test_a_plugin_upgraded_on_disk_is_refused_by_processes_that_start_later(make, wheel_of, owl, expected, tmp_path):
    run = make(wheel_of(STRANGER))
    newer = shutil.copytree(STRANGER, tmp_path / "newer")
    for file, before, after in (
        ("pyproject.toml", '"0.3.1"', '"0.3.2"'),
        ("vllm_plugin_owl/model.py", "relu().square()", "relu()"),
    ):
        text = newer.joinpath(file).read_text()
        assert before in text
        newer.joinpath(file).write_text(text.replace(before, after))
    wheel = build_wheel(newer, tmp_path / "wheel")
    upgrade = [sys.executable, "-m", "pip", "--python", str(run.binaries / "python"), "install", *OFFLINE, str(wheel)]
    said = answer(run, UPGRADED, owl, json.dumps(upgrade))
    assert said["tokens"] == expected  # by 0.3.1
    assert "a rank's process made other choices than the engine." in said["ranks"]
    assert "LockMismatch: the engine process made other choices than its caller." in said["engine"]
    for refused in (said["ranks"], said["engine"]):
        assert "vllm-plugin-owl 0.3.2" in refused
        assert "start again" in refused
    assert answer(run, TWO_PROCESSES, owl)["tokens"] != expected  # started again, it is another engine
