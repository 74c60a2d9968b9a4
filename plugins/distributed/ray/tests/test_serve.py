"""Two engines under Ray Serve answer as one does, and one that dies is replaced while the other goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vllm_core import LLM, SamplingParams
from vllm_core.commands import SettingError

ray = pytest.importorskip("ray")
pytest.importorskip("transformers")
httpx = pytest.importorskip("httpx")
if importlib.util.find_spec("vllm_plugin_server") is None:
    pytest.skip("vllm-plugin-server is not installed: the extra vllm-plugin-ray[serve]", allow_module_level=True)
try:
    from ray import serve
except ImportError as error:
    pytest.skip(f"Ray Serve is not installed: the extra vllm-plugin-ray[serve] ({error})", allow_module_level=True)

sys.path.append(str(Path(__file__).parent))
from processes import below, comes_true, engines  # noqa: E402
from vllm_plugin_ray.replica import check_devices  # noqa: E402
from vllm_plugin_ray.serve import build  # noqa: E402
from vllm_plugin_ray.serve_settings import read  # noqa: E402
from vllm_plugin_server.testing.tiny import write_tiny  # noqa: E402

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_model_len": 256}
PROMPTS = ["Hello", "One, two, three", "x" * 40]
ASKED = {"model": "tiny", "max_tokens": 24, "temperature": 0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_num_seq": 8}, '"max_num_seq" is not a setting; did you mean "max_num_seqs"'),
        ({"replicass": 2}, '"replicass" is not a setting; did you mean "replicas"'),
        ({"api_keys": "x"}, '"api_keys" is not a setting; did you mean "api_key"'),
        ({"port": 80}, "port has no effect under Ray Serve: Ray Serve's proxy listens"),
        ({"response_store": 5}, "may come to another replica"),
        ({"plugin": {"server": {"log_level": "info"}}}, "the server's settings stand beside the engine's: log_level"),
        ({"plugin": {"ray": {"adress": "auto"}}}, '"adress" is not a setting of plugin "ray"; did you mean "address"'),
        ({"replicas": "0"}, "replicas must be at least 1"),
        ({"skip_tokenizer_init": True}, "the server needs a tokenizer"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_starts(given, message):
    with pytest.raises(SettingError, match=re.escape(message)):
        build({"model": "tiny", **given})


def test_a_model_must_be_named():
    with pytest.raises(SettingError, match="no model was named"):
        build({"replicas": 2})


def test_arguments_of_a_command_line_are_read_as_flags_are():
    settings = read({"model": "tiny", "max_model_len": "100", "served_model_name": "a,b", "gpus_per_replica": "0.5"})
    assert settings.engine.max_model_len == 100
    assert settings.server.served_model_name == ["a", "b"]
    assert settings.replica.gpus_per_replica == 0.5
    assert (settings.server.engine_restarts, settings.server.response_store) == (0, 0)


def test_an_engine_does_not_run_on_the_cpu_by_mistake():
    with pytest.raises(SettingError, match="the cluster has 2 GPUs, and this replica asks for none"):
        check_devices(read({"model": "tiny"}), 2)
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "ray", "gpus_per_replica": 2}
    actors = read({"model": "tiny", **ranks})
    with pytest.raises(SettingError, match="ranks as actors on GPUs are not built"):
        check_devices(actors, 2)
    check_devices(read({"model": "tiny", "device": "cpu"}), 2)
    check_devices(read({"model": "tiny", "gpus_per_replica": 1}), 2)
    check_devices(read({"model": "tiny"}), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def alone(folder):
    with LLM(folder, **SETTINGS) as llm:
        outputs = llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=24), use_tqdm=False)
        return [output.outputs[0].text for output in outputs]


@pytest.fixture(scope="module")
def url(folder):
    """Of an application with two replicas, below a prefix."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    named = {"model": folder, "served_model_name": "tiny", **SETTINGS}
    serve.run(build({**named, "replicas": 2, "cpus_per_replica": 0.5}), route_prefix="/llm")
    yield f"http://127.0.0.1:{port}/llm"
    if ray.is_initialized():  # else Ray would start another cluster to shut it down
        serve.shutdown()
        ray.shutdown()


def post(url, prompt, **more):
    return httpx.post(f"{url}/v1/completions", json={**ASKED, "prompt": prompt, **more}, timeout=60)


def text_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


@pytest.mark.slow
def test_two_replicas_answer_as_one_engine_does(url, alone):
    assert len(engines()) == 2
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: text_of(post(url, PROMPTS[i % 3])), range(24)))
    assert answers == alone * 8


@pytest.mark.slow
def test_a_stream_comes_in_pieces_that_are_the_answer(url, alone):
    body = {**ASKED, "prompt": PROMPTS[0], "stream": True}
    assert "".join(pieces_of(url, body)) == alone[0]
    pieces = pieces_of(url, {**body, "max_tokens": 200})
    assert len(pieces) > 1
    assert "".join(pieces) == text_of(post(url, PROMPTS[0], max_tokens=200))


def pieces_of(url, body):
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = answer.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-2]]


@pytest.mark.slow
def test_each_replica_gets_requests(url):
    """Many at a time: one after the other, they may all go to whom Ray Serve remembers as the less busy one."""
    answered = {}  # by when the replica began

    def figures(_):
        post(url, PROMPTS[0])
        text = httpx.get(f"{url}/metrics", timeout=60).text
        begun = re.search(r"^process_start_time_seconds (\S+)", text, re.MULTILINE)[1]
        counts = re.findall(r"^vllm:request_success_total{.*} (\S+)$", text, re.MULTILINE)
        answered[begun] = sum(map(float, counts))

    def both_answered():
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(figures, range(32)))
        return len(answered) == 2 and all(answered.values())

    assert comes_true(both_answered, 60), answered


@pytest.mark.slow
def test_errors_are_the_servers_own(url):
    answer = httpx.post(f"{url}/v1/completions", json={**ASKED, "prompt": "x", "max_token": 3}, timeout=60)
    assert answer.status_code == 400
    assert "max_tokens" in answer.json()["error"]["message"]
    assert httpx.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"] == "tiny"


@pytest.mark.slow
def test_a_replica_whose_engine_is_killed_is_replaced_while_the_other_answers(url, alone):
    before = engines()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    good, bad = 0, []

    def replaced():
        nonlocal good
        answer = post(url, PROMPTS[0])
        if answer.status_code == 200:
            assert text_of(answer) == alone[0]
            good += 1
        else:
            bad.append((answer.status_code, answer.text))
        return len(engines()) == 2 and victim not in engines()

    assert comes_true(replaced, 60), bad
    assert good >= 5
    # Only what came before the replica knew that its engine had ended, or before it had ended itself.
    assert len(bad) < good
    assert all(status in (500, 503) for status, _ in bad), bad
    assert before - {victim} < engines()

    def healthy():
        return serve.status().applications["default"].status == "RUNNING"

    assert comes_true(healthy, 60)
    assert [text_of(post(url, prompt)) for prompt in PROMPTS * 4] == alone * 4


@pytest.mark.slow
def test_the_end_of_the_application_leaves_no_engine(url):
    """The last test of this file: it ends the cluster."""
    serve.delete("default")
    assert comes_true(lambda: not engines(), 30), below()
    serve.shutdown()
    ray.shutdown()
    assert comes_true(lambda: not [line for line in below().values() if "ray" in line], 30), below()
