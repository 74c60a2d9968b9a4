"""Two server processes in front of one engine: whoever is asked tells what both and the engine did, once."""

import json
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from vllm_plugin_server.metrics import shared

pytestmark = pytest.mark.slow

# Says where its engine is (the first front only), then runs as many prompts as a line says, and tells its figures.
FRONT = """
import asyncio, json, sys
from types import SimpleNamespace as Bag
import attrs
from vllm_core.commands import EngineSettings
from vllm_core.serving import AsyncLLM, SamplingParams
from vllm_plugin_server.metrics.routes import metrics
from vllm_plugin_server.observe import Call

if len(sys.argv) > 1:
    address, settings = json.loads(sys.argv[1])
    llm = AsyncLLM.connect(address, EngineSettings(**settings))
else:
    llm = AsyncLLM("SmolLM2-135M-Instruct", max_model_len=128)
context = Bag(engine=llm, models={"smol": "base"}, settings=Bag(metrics_prefix="vllm:"), state={}, observers=[],
              on_startup=[])
metrics(context)
board = context.state["metrics"]

async def main():
    for begin in context.on_startup:
        await begin()
    print(json.dumps([llm.address, attrs.asdict(llm.settings)]), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        for _ in range(int(line)):
            params = SamplingParams(max_tokens=5, temperature=0, ignore_eos=True)
            call = Call("r", "/v1/completions", "smol", 3, params)
            board.calls.began(call)
            async for output in llm.generate("One, two,", params):
                board.calls.output(call, output)
            board.calls.ended(call, "length", output)
        await asyncio.sleep(0.3)  # until the engine's last figures are here
        await board.refresh()
        print(json.dumps(board.text("")[1].decode()), flush=True)

asyncio.run(main())
llm.shutdown()
"""


class Front:
    def __init__(self, *arguments):
        command = [sys.executable, "-c", FRONT, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self.process.stdout.readline().strip()

    def run(self, prompts):
        self.process.stdin.write(f"{prompts}\n")
        self.process.stdin.flush()
        text = json.loads(self.process.stdout.readline())
        samples = (s for metric in parse(text) for s in metric.samples)
        return {s.name: s.value for s in samples if set(s.labels) == {"model_name", "engine"}}

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture
def board(smollm2):
    """Nothing of it may stay, whatever breaks: later tests of this process have one front each."""
    folder = shared.share()
    yield
    shared.unshare(folder)


def test_any_front_tells_the_figures_of_all(board):
    fronts = []
    try:
        fronts.append(Front())
        fronts.append(Front(fronts[0].hello))
        first, second = fronts
        first.run(2)
        found = second.run(3)
        assert found["vllm:generation_tokens_total"] == 25
        assert found["vllm:inter_token_latency_seconds_count"] == 20
        assert found["vllm:request_queue_time_seconds_count"] == 5
        assert found["vllm:time_to_first_token_seconds_count"] == 5
        assert found["vllm:e2e_request_latency_seconds_count"] == 5
        again = first.run(0)
        grown = [name for name in found if name.endswith(("_total", "_count")) and again[name] != found[name]]
        assert grown == []  # HTTP and processes have other labels
        second.end()  # what it has counted stays
        shared.gone(second.process.pid)
        assert first.run(1)["vllm:e2e_request_latency_seconds_count"] == 6
    finally:
        for front in reversed(fronts):
            front.end()
