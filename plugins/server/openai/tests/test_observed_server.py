"""A whole server, started as users start it, with every flag that is about watching it: figures, logs, traces, page."""

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

MODEL, KEY = "SmolLM2-135M-Instruct", "sk-quite-secret"
TRACE = "0af7651916cd43dd8448eb211c80319c"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("smollm2")]


class Collector(BaseHTTPRequestHandler):
    got = b""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Collector.got += gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


class Server:
    def __init__(self, folder):
        self.log = folder / "log"
        self.collector = HTTPServer(("127.0.0.1", 0), Collector)
        threading.Thread(target=self.collector.serve_forever, daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable, "-m", "vllm_core", "serve", MODEL, "--port", str(port), "--api-key", KEY,
            "--max-model-len", "256", "--metrics-prefix", "mine:", "--log-format", "json", "--log-requests",
             "--otlp-traces-endpoint", f"http://127.0.0.1:{self.collector.server_port}",
        ]  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.http = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-2000:])

    def complete(self, prompt="One, two,", headers=None, **fields):
        body = {"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **fields}
        answer = self.http.post("/v1/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    def figures(self):
        text = self.http.get("/metrics").raise_for_status().text
        found = {}
        for metric in parse(text):
            for sample in metric.samples:
                labels = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
                found[(sample.name, *sorted(labels.items()))] = sample.value
        return found

    def settled(self, name, value, *labels):
        """The engine tells its figures up to ten times a second."""
        for _ in range(50):
            found = self.figures()
            if found.get((name, *labels), 0) >= value:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{name} is {found.get((name, *labels))}, and not {value}")

    def records(self):
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.http.close()
        self.collector.shutdown()
        self.collector.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    if server.process.poll() is None:
        server.stop()


def test_figures_follow_what_requests_did(server):
    before = server.figures()
    server.complete()
    server.complete(n=2, temperature=0.5)
    with server.http.stream("POST", "/v1/completions", json={
        "model": MODEL, "prompt": "One, two,", "max_tokens": 8, "ignore_eos": True, "stream": True,
    }) as answer:  # fmt: skip
        assert answer.read()
    asked = before.get(("mine:generation_tokens_total",), 0)
    after = server.settled("mine:generation_tokens_total", asked + 32)

    def grown(name, *labels):
        return after[(name, *labels)] - before.get((name, *labels), 0)

    assert grown("mine:generation_tokens_total") == 32
    assert grown("mine:inter_token_latency_seconds_count") == 28
    assert grown("mine:request_success_total", ("finished_reason", "length")) == 4
    assert grown("mine:time_to_first_token_seconds_count") == 3
    assert grown("mine:e2e_request_latency_seconds_count") == 3
    assert grown("mine:request_queue_time_seconds_count") == 4
    assert grown("mine:request_params_n_sum") == 4
    assert grown("mine:prompt_tokens_total") == 3 * 4
    assert grown("mine:iteration_tokens_total_sum") >= 32
    labels = [("code", "200"), ("handler", "/v1/completions"), ("method", "POST"), ("status", "2xx")]
    assert grown("http_requests_total", *labels) == 3
    assert after[("mine:num_requests_running",)] == after[("mine:api_server_requests",)] == 0
    assert after[("mine:engine_up",)] == 1
    assert sum(v for (name, *_), v in after.items() if name == "mine:startup_seconds") > 0.1
    info = next(dict(labels) for name, *labels in after if name == "mine:cache_config_info")
    assert int(info["block_size"]) >= 1
    assert int(info["block_size"]) * int(info["num_gpu_blocks"]) >= 256
    assert after[("engine_process_resident_memory_bytes",)] > 1e8
    assert not [name for name, *_ in after if name.startswith("vllm")]


def test_the_load_is_what_runs(server):
    assert server.http.get("/load").json() == {"server_load": 0, "running": 0, "waiting": 0, "cache_usage": 0.0}
    with server.http.stream("POST", "/v1/completions", json={
        "model": MODEL, "prompt": "Tell", "max_tokens": 200, "ignore_eos": True, "stream": True,
    }) as answer:  # fmt: skip
        lines = answer.iter_lines()  # closed when it is forgotten, and the answer with it
        assert next(lines)
        busy = httpx.get(f"{server.url}/load", headers=server.http.headers).json()
    assert busy["server_load"] == 1
    assert busy["cache_usage"] > 0
    for _ in range(100):  # the client has left
        if server.http.get("/load").json()["server_load"] == 0:
            break
        time.sleep(0.05)
    found = server.settled("mine:request_success_total", 1, ("finished_reason", "abort"))
    assert found[("http_requests_disconnected_total", ("handler", "/v1/completions"))] >= 1


def test_paths_that_clients_invent_share_a_label(server):
    for i in range(5):
        assert server.http.get(f"/invented/{i}").status_code == 404
    handlers = {dict(key[1:])["handler"] for key in server.figures() if key[0] == "http_requests_total"}
    assert "none" in handlers
    assert not [handler for handler in handlers if "invented" in handler]


def test_the_pages_files_are_open_and_what_it_shows_is_not(server):
    for path, expected in {
        "/": 200, "/page/page.js": 200, "/page/page.css": 200, "/page/about": 401, "/metrics": 401, "/load": 401,
        "/page/nothing.js": 401, "/page/../metrics": 401,
    }.items():  # fmt: skip
        assert httpx.get(server.url + path).status_code == expected, path
    about = server.http.get("/page/about").json()
    assert about["served_as"] == [MODEL]
    states = {plugin["name"]: plugin["state"] for plugin in about["plugins"]}
    assert states["llama"] == "used"
    assert states["server"] == "active"
    assert about["metrics"] == {"prefix": "mine:"}
    assert about["choices"]


def test_a_person_asks_for_the_key_and_talks_to_the_model(server):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs a Chromium (on Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(f"{server.url}/")
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_text("Serving").wait_for()
        page.get_by_text("Options").click()
        page.fill("#max-tokens", "12")
        page.fill("#temperature", "0")
        page.fill("#message", "What is the capital of France?")
        page.keyboard.press("Enter")
        page.locator(".after:not(:empty)").wait_for()
        assert "Paris" in page.locator(".from-model .text").text_content()
        assert "tokens/s" in page.locator(".from-model .after").text_content()
        browser.close()


def test_every_record_of_a_request_names_it_and_no_key_or_prompt_is_logged(server):
    answer = server.complete(prompt="An unusual word: zyzzyva", headers={"x-request-id": "mine-7"})
    ids = answer.headers["x-vllm-core-request-id"]
    for _ in range(50):
        found = [record for record in server.records() if record.get("request_id") == ids]
        if len(found) == 3:
            break
        time.sleep(0.05)
    began, ended, answered = found
    assert (began["message"], began["temperature"], began["max_tokens"]) == ("began", 0, 8)
    assert (ended["message"], ended["finish_reason"], ended["output_tokens"]) == ("ended", "length", 8)
    assert (answered["route"], answered["status"], answered["label"]) == ("/v1/completions", 200, "mine-7")
    text = server.log.read_text()
    assert KEY not in text
    assert "zyzzyva" not in text


def test_a_client_cannot_write_into_the_log(server):
    bad = "x\x1b[2J"
    server.http.post(
        "/v1/completions", content=json.dumps({"model": bad, "prompt": "a"}), headers={"x-request-id": "a"}
    )
    with socket.create_connection(("127.0.0.1", int(server.url.split(":")[2]))) as raw:
        raw.sendall(
            b"GET /\x1b[31m%0aforged HTTP/1.1\r\nhost: a\r\nx-request-id: \x1b[31m\r\nconnection: close\r\n\r\n"
        )
        while raw.recv(4096):
            pass
    assert "\x1b" not in server.log.read_text()


def test_traces_reach_the_collector_when_the_server_ends(server):
    server.complete(headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    server.stop()
    assert server.process.returncode == 0, server.log.read_text()[-2000:]
    assert b"llm_request" in Collector.got
    assert bytes.fromhex(TRACE) in Collector.got
    assert b"zyzzyva" not in Collector.got
