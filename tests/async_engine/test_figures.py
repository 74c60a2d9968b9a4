"""Figures of the engine reach whoever wants them: callbacks of AsyncLLM, and sinks that plugins offer."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from tests.loading.checkpoints import tiny_model, write
from tests.plugins.dummies import Site
from vllm_core import LLM, AsyncLLM, SamplingParams
from vllm_core.plugins.errors import PluginError

SETTINGS = {"dtype": "float32", "max_num_seqs": 4, "max_num_batched_tokens": 64}
SINK = """
HOOK_API = 1
from vllm_core.plugin import Offer, Provides, hookimpl

@hookimpl
def provides():
    return [Provides("metrics_sink", "lines", "a file")]

@hookimpl
def metrics_sink(query):
    return Offer(name="lines", target="{module}_impl:Lines", options={"file": "{file}"})
"""
IMPL = """
import json, os

class Lines:
    def __init__(self, query):
        self.file = open(query.options["file"], "a")
        self.write("made", query.model, query.config["max_num_seqs"], os.getpid())
    def write(self, *words):
        print(json.dumps(words), file=self.file, flush=True)
    def step(self, stats):
        self.write("step", stats.prompt_tokens, stats.output_tokens)
    def request(self, stats):
        self.write("request", stats.finish_reason, stats.prompt_tokens, stats.output_tokens)
    def close(self):
        self.write("closed")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model()))


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """A sink is installed, here and for processes started from here; gives what it wrote."""
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    site, file = Site(tmp_path / "site"), tmp_path / "lines"
    site.folder.mkdir()
    monkeypatch.syspath_prepend(str(site.folder))
    monkeypatch.setenv("PYTHONPATH", str(site.folder), prepend=os.pathsep)
    module = site.install("lines", SINK, file=str(file))
    (site.folder / f"{module}_impl.py").write_text(IMPL)
    return lambda: [json.loads(line) for line in file.read_text().splitlines()]


async def last(outputs):
    async for found in outputs:  # noqa: B007
        pass
    return found


def check(found, requests, pid):
    made, *rest, closed = found
    assert made[0] == "made"
    assert made[2] == 4
    assert (made[3] == os.getpid()) is (pid == os.getpid())
    assert closed == ["closed"]
    assert [line[1:] for line in rest if line[0] == "request"] == requests
    steps = [line for line in rest if line[0] == "step"]
    assert sum(line[1] for line in steps) == sum(prompt for _, prompt, _ in requests)
    assert sum(line[2] for line in steps) == sum(output for _, _, output in requests)


def test_a_sink_of_a_plugin_is_fed_by_llm_in_this_process(folder, lines):
    with LLM(folder, **SETTINGS) as llm:
        assert [d.offer.name for d in llm.built.decisions if d.hook == "metrics_sink"] == ["lines"]
        llm.generate({"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=4, ignore_eos=True), use_tqdm=False)
    check(lines(), [["length", 3, 4]], os.getpid())


def test_a_sink_of_a_plugin_is_fed_in_the_engines_process(folder, lines):
    llm = AsyncLLM(folder, **SETTINGS)
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    asyncio.run(last(llm.generate({"prompt_token_ids": [5, 6, 7]}, params)))
    llm.shutdown()
    check(lines(), [["length", 3, 4]], None)


def test_a_sink_that_cannot_be_made_ends_the_start_by_name(folder, lines, tmp_path):
    (tmp_path / "lines").mkdir()  # where its file should be
    with pytest.raises(PluginError, match='metrics sink "lines" cannot be made') as caught:
        LLM(folder, **SETTINGS)
    assert "IsADirectoryError" in str(caught.value)
    assert 'block = ["metrics_sink:lines"]' in str(caught.value)
    with LLM(folder, **SETTINGS, plugins={"block": ["metrics_sink:lines"]}) as llm:
        assert llm.generate("Once", SamplingParams(max_tokens=1), use_tqdm=False)


def test_callbacks_get_every_step_and_request_once_and_the_rest_goes_on_when_one_fails(folder):
    llm, seen, failed = AsyncLLM(folder, **SETTINGS), [], []

    def fail(figures):
        failed.append(figures)
        raise RuntimeError("not today")

    async def ask():
        llm.on_stats(fail)
        end = llm.on_stats(seen.append)
        stopping = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop=["e", "a", "o", " "])
        plain = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
        outputs = [last(llm.generate(f"Number {i}", plain, request_id=f"r{i}")) for i in range(6)]
        outputs = await asyncio.gather(*outputs, last(llm.generate("Stop", stopping, request_id="stops")))
        for _ in range(100):
            if sum(len(figures.requests) for figures in seen) == 7:
                break
            await asyncio.sleep(0.02)
        end()
        count = len(seen)
        await last(llm.generate("After", plain))
        await llm.stats()
        return outputs, count

    try:
        outputs, count = asyncio.run(ask())
    finally:
        llm.shutdown()
    assert len(failed) == 1
    assert len(seen) == count
    requests = {r.request_id: r for figures in seen for r in figures.requests}
    assert len(requests) == sum(len(figures.requests) for figures in seen) == 7
    assert outputs[-1].outputs[0].finish_reason == requests["stops"].finish_reason == "stop"
    assert {requests[f"r{i}"].finish_reason for i in range(6)} == {"length"}
    assert {requests[f"r{i}"].output_tokens for i in range(6)} == {5}
    steps = [step for figures in seen for step in figures.steps]
    assert sum(step.output_tokens for step in steps) >= 30 + len(outputs[-1].outputs[0].token_ids)
    assert all(step.pages_total >= step.pages_used >= 0 for step in steps)
