"""``vllm-core serve`` as a process: its settings, its sockets, its end."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
import time

import httpx
import pytest

LONG = {"prompt": "a", "max_tokens": 480, "ignore_eos": True, "stream": True}


def command(*words: str, **options):
    run = [sys.executable, "-m", "vllm_core", *words]
    return subprocess.run(run, capture_output=True, text=True, timeout=120, **options)


def test_the_help_has_the_servers_flags_and_the_engines():
    done = command("serve", "--help")
    assert done.returncode == 0
    for flag in ("--host", "--api-key", "--served-model-name", "--max-concurrent-requests", "--max-model-len"):
        assert flag in done.stdout


def test_wrong_settings_end_the_start_before_a_model_is_loaded(tmp_path):
    for words, said in (
        (("--port", "99999"), "at most 65,535"),
        (("--ssl-keyfile", "x"), "given together"),
        (("--ssl-keyfile", "/no/key", "--ssl-certfile", "/no/certificate"), "--ssl-certfile /no/certificate cannot be"),
        (("--ssl-keyfile", __file__, "--ssl-certfile", __file__), "are no certificate"),
        (("--lora-modules", "a=b"), "adapters are not built yet"),
        (("--prot", "1"), "--port"),
        (("--api-key", "a b"), "printable ASCII"),
        (("--log-level", "loud"), "log_level must be one of"),
    ):
        done = command("serve", str(tmp_path), *words)
        assert done.returncode == 2, (words, done.stderr)
        assert said in done.stderr


def test_a_wrong_variable_names_the_nearest(tmp_path):
    done = command("serve", str(tmp_path), env={**os.environ, "VLLM_CORE_SERVER_PROT": "1"})
    assert done.returncode == 2
    assert "VLLM_CORE_SERVER_PORT" in done.stderr


def test_settings_come_from_files_and_variables_and_flags_win(start, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[plugin.server]\nserved_model_name = ["from-file"]\nresponse_role = "bot"\nlog_level = "warning"\n'
    )
    env = {"VLLM_CORE_SERVER_RESPONSE_ROLE": "robot", "VLLM_CORE_SERVER_LOG_LEVEL": "error"}
    server = start("--config", str(file), "--log-level", "info", env=env)  # and with names of the model

    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["tiny", "other-name"]
    answer = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1})
    assert answer.json()["choices"][0]["message"]["role"] == "robot"


def test_a_route_can_be_taken_away(start):
    server = start("--plugins-block", "endpoint:/detokenize")
    assert server.post("/detokenize", {"tokens": [1]}).status_code == 404
    assert server.post("/tokenize", {"prompt": "a"}).status_code == 200
    assert "/detokenize" not in server.get("/openapi.json").json()["paths"]


def test_it_listens_on_a_unix_socket_alone(start, tmp_path):
    path = tmp_path / "s"
    server = start("--uds", str(path))
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://server") as client:
        assert client.get("/v1/models").status_code == 200
    assert server.stop() == 0
    assert not path.exists()


def test_it_speaks_https(start, tmp_path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl is not there to make a certificate")
    server = start("--ssl-keyfile", str(key), "--ssl-certfile", str(certificate))
    trusted = ssl.create_default_context(cafile=str(certificate))
    assert server.url.startswith("https://")
    assert httpx.get(f"{server.url}/v1/models", verify=trusted).status_code == 200


def test_behind_a_prefix_and_for_other_origins(start):
    server = start("--root-path", "/llm", "--allowed-origins", "https://page.example")
    answer = httpx.get(f"{server.url}/v1/models", headers={"origin": "https://page.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    other = httpx.get(f"{server.url}/v1/models", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_no_page_of_another_origin_may_read_answers_unless_asked(server):
    answer = server.get("/v1/models", headers={"origin": "https://page.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_port_that_is_taken_is_told_at_once(server, tiny):
    done = command("serve", str(tiny), "--port", str(server.port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{server.port}" in done.stderr
    assert "--port 0" in done.stderr


def test_the_log_says_where_the_seconds_of_the_start_went(server):
    (line,) = [line for line in server.log.splitlines() if "seconds of the engine's start" in line]
    for stage in ("plugins", "checkpoint", "weights"):
        assert f"{stage} 0." in line


def test_it_listens_on_this_machine_alone(server):
    import psutil

    listening = [c.laddr for c in psutil.Process(server.process.pid).net_connections("inet") if c.status == "LISTEN"]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", server.port)]


def test_the_version_tells_what_was_chosen_and_no_key(start):
    server = start("--api-key", "very-secret-key")
    report = server.get("/version", headers={"x-api-key": "very-secret-key"})
    assert {choice["hook"] for choice in report.json()["choices"]} >= {"model", "attention_backend", "executor"}
    assert any(plugin["name"] == "server" for plugin in report.json()["plugins"])
    assert "very-secret-key" not in report.text


class Streams:
    """So many streams that run, each in a thread; ``ends``: what each got last."""

    def __init__(self, server, count: int) -> None:
        self.ends: list[str] = []
        self._begun = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._run, args=(server,)) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        for _ in self.threads:
            assert self._begun.acquire(timeout=30)

    def _run(self, server) -> None:
        text = ""
        try:
            with httpx.stream("POST", f"{server.url}/v1/completions", json=LONG, timeout=60) as stream:
                for piece in stream.iter_text():
                    if not text:
                        self._begun.release()
                    text += piece
        except httpx.HTTPError as error:
            text += f"{type(error).__name__}"
        self.ends.append(text[-400:])

    def join(self) -> list[str]:
        for thread in self.threads:
            thread.join(60)
        return self.ends


def test_sigterm_lets_streams_end_and_takes_no_new_work(start):
    server = start()
    streams = Streams(server, 4)
    server.process.terminate()
    time.sleep(0.3)
    with pytest.raises(httpx.HTTPError):
        server.get("/v1/models")

    assert all(end.rstrip().endswith("[DONE]") and '"length"' in end for end in streams.join())
    assert server.process.wait(20) == 0


def test_what_is_not_done_by_the_deadline_ends_with_an_error(start):
    server = start("--shutdown-timeout", "0.1", "--max-num-seqs", "1")
    streams = Streams(server, 1)
    server.process.terminate()
    assert server.process.wait(10) == 0
    (end,) = streams.join()
    assert "shutting_down" in end or '"length"' in end


def test_a_second_signal_ends_at_once(start):
    server = start("--max-num-seqs", "1")
    streams = Streams(server, 1)
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    server.process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert server.process.wait(10) in (130, 0)  # 0: the stream had ended by itself
    assert time.monotonic() - begun < 5
    streams.join()


def test_no_process_outlives_the_server(start):
    import psutil

    for end in (signal.SIGTERM, signal.SIGKILL):
        server = start()
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert children
        server.process.send_signal(end)
        server.process.wait(20)
        gone, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
        assert len(gone) == len(children)


def test_the_openapi_document_describes_what_is_served(server):
    document = server.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    chat = document["components"]["schemas"]["ChatRequest"]
    assert chat["required"] == ["messages"]
    n = next(kind for kind in chat["properties"]["n"]["anyOf"] if kind["type"] == "integer")
    assert (n["minimum"], n["maximum"]) == (1, 128)
    for path, methods in document["paths"].items():
        assert path.startswith("/")
        assert all("responses" in operation for operation in methods.values())
    page = server.get("/docs").text
    assert "/v1/chat/completions" in page
    assert "http://" not in page.replace(server.url, "")
    assert "https://" not in page


def test_settings_of_answers_hold_for_every_request(start):
    server = start(
        "--default-chat-template-kwargs", '{"loud": true}', "--enable-force-include-usage",
        "--return-tokens-as-token-ids", "--chat-template-content-format", "string",
    )  # fmt: skip
    ask = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 1}
    loud = server.post("/tokenize", {"messages": ask["messages"]}).json()["count"]
    quiet = server.post("/tokenize", {"messages": ask["messages"], "chat_template_kwargs": {"loud": False}})
    assert loud == quiet.json()["count"] + len("LOUD")
    *_, last, _done = server.post("/v1/chat/completions", {**ask, "stream": True}).text.split("data: ")
    assert '"total_tokens"' in last
    choice = server.post("/v1/chat/completions", {**ask, "logprobs": True, "ignore_eos": True}).json()["choices"][0]
    assert choice["logprobs"]["content"][0]["token"].startswith("token_id:")
