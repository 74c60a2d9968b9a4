"""``vllm-core serve``: a checkpoint in a format of its own, a route with settings, and the rest, in two processes."""

import json
import re
import subprocess
import sys
import threading

import httpx
import pytest
import torch

from tests.no_need_to_patch.heron_oracle import Heron
from tests.third_party.conftest import Shell

pytest.importorskip("vllm_plugin_server")
KEY = {"authorization": "Bearer secret"}
FLAGS = (
    *("--port", "0", "--api-key", "secret", "--dtype", "float32", "--max-model-len", "256", "--no-access-log"),
    *("--scheduling-policy", "deadline", "--logits-processors", "no-pairs", "--prefer", '{"sampler": ["sigma"]}'),
    *("--plugin.nextwords.most", "3", "--plugin.ledger.file", "lines", "--plugin.sigma.n", "2"),
)


class Server:
    """``url``: where it answers; ``lines``: what the engine's figures were written to."""

    def __init__(self, shell, model):
        command = [sys.executable, "-m", "vllm_core", "serve", str(model), *FLAGS]
        self.process = subprocess.Popen(command, cwd=shell.folder, env=shell.environ, stderr=subprocess.PIPE, text=True)
        self.said, self.url, self.lines = [], "", shell.folder / "lines"
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"serving .* at (http://\S+),", line):
                self.url = found[1]
                break
        assert self.url, "".join(self.said)
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def post(self, path, body, headers=KEY):
        return httpx.post(self.url + path, json=body, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def server(site, probed, heron_file, tmp_path_factory):
    made = Server(Shell(tmp_path_factory.mktemp("served"), site, probed), heron_file)
    yield made
    made.process.terminate()
    assert made.process.wait(60) == 0


def test_the_route_answers_with_the_models_own_probabilities(server, heron_folder):
    answer = server.post("/v1/next", {"prompt": "The quick brown", "top": 3})
    assert answer.status_code == 200, answer.text
    ids = server.post("/tokenize", {"prompt": "The quick brown"}).json()["tokens"]
    likeliest = Heron(heron_folder)(ids)[-1].softmax(-1).topk(3)
    got = answer.json()["next"]
    assert torch.tensor([one["probability"] for one in got]).allclose(likeliest.values, atol=1e-4)
    texts = [server.post("/detokenize", {"tokens": [i]}).json()["prompt"] for i in likeliest.indices.tolist()]
    assert [one["token"] for one in got] == texts


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"prompt": "a", "top": 4}, 400, "this server tells 3 tokens at most"),  # the plugin's own setting
        ({"prompt": "a", "top": 0}, 400, "top: "),
        ({"prompt": "a", "topp": 1}, 400, "did you mean 'top'?"),
        ({"prompt": "a", "model": "m" * 300}, 400, "model: "),
        ({"prompt": "a", "model": "another"}, 404, "does not exist here"),
        ({"prompt": "a " * 4000}, 400, "maximum context length is 256"),
    ],
)
def test_what_a_request_does_wrong_is_told_as_on_every_route(server, body, status, said):
    answer = server.post("/v1/next", body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text


def test_keys_methods_and_sizes_are_the_servers(server):
    assert server.post("/v1/next", {"prompt": "a"}, headers={}).status_code == 401
    assert httpx.get(server.url + "/v1/next", headers=KEY).status_code == 405
    large = httpx.post(server.url + "/v1/next", content=b" " * (2**25 + 1), headers=KEY, timeout=60)
    assert (large.status_code, "may have at most" in large.text) == (413, True)
    assert "/v1/next" in httpx.get(server.url + "/openapi.json", headers=KEY).json()["paths"]


def test_parameters_of_plugins_come_with_requests(server):
    body = {"prompt": "again and again", "max_tokens": 40, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    body["return_tokens_as_token_ids"] = True
    tokens = {}
    for banned in (False, True):
        more = {"vllm_xargs": {"no_pairs": banned, "deadline_ms": 100}}
        choice = server.post("/v1/completions", {**body, **more}).json()["choices"][0]
        tokens[banned] = choice["logprobs"]["tokens"]
    assert len(tokens[True]) == 40
    pairs = list(zip(tokens[True], tokens[True][1:], strict=False))
    assert len(set(pairs)) == len(pairs)
    assert tokens[True] != tokens[False]
    wrong = server.post("/v1/completions", {**body, "vllm_xargs": {"deadline_ms": "soon"}})
    assert wrong.status_code == 400
    assert 'scheduler policy "deadline": deadline_ms must be a number' in wrong.json()["error"]["message"]


def test_the_server_says_whose_they_are(server):
    report = httpx.get(server.url + "/version", headers=KEY, timeout=60).json()
    owners = {choice["hook"]: choice["chosen"]["distribution"] for choice in report["choices"]}
    wanted = {"model": "heron", "weight_format": "nest", "scheduler_policy": "deadline", "sampler": "sigma"}
    wanted |= {"metrics_sink": "ledger", "logits_processor": "sigma"}
    assert {hook: owners[hook] for hook in wanted} == {hook: f"vllm-plugin-{name}" for hook, name in wanted.items()}
    states = {plugin["name"]: plugin["state"] for plugin in report["plugins"]}
    assert states["nextwords"] == "active"


def test_the_engines_process_writes_its_figures(server):
    server.post("/v1/completions", {"prompt": "one", "max_tokens": 3, "ignore_eos": True})
    lines = [json.loads(line) for line in server.lines.read_text().splitlines()]
    assert sum(line["output_tokens"] for line in lines if line["kind"] == "step") >= 3
