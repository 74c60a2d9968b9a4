"""An engine without a model: it says the prompt's bytes again and again, one a moment. What is measured is the server.

``python -m vllm_plugin_server.testing.echo`` serves it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import CompletionOutput, Prompt, RequestMetrics, RequestOutput, SamplingParams
from vllm_plugin_server import http_endpoints
from vllm_plugin_server.admission import Admission
from vllm_plugin_server.app import make_app
from vllm_plugin_server.settings import ServerSettings
from vllm_plugin_server.work import Work

__all__ = ["Bytes", "EchoEngine", "main"]

ROUTES = ("/v1/completions", "/v1/models", "/tokenize", "/detokenize", "/health")
LONGEST = 100_000  # tokens


class Bytes:
    """A tokenizer: a byte is a token."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return bytes(ids).decode("utf-8", "replace")


class EchoEngine:
    """What the server uses of ``AsyncLLM``.

    gap   seconds between two tokens; the first comes at once
    """

    def __init__(self, gap: float) -> None:
        self.gap, self.running = gap, 0
        self.settings = SimpleNamespace(model="echo")
        self.ready = SimpleNamespace(longest=LONGEST, vocab_size=256)
        self.text = SimpleNamespace(renderer=None, tokenizer=Bytes())
        self.generation_config: dict[str, Any] = {}
        self.dead: None = None

    def get_tokenizer(self) -> Bytes:
        return self.text.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams()

    def read_prompt(self, prompt: Any, *, add_special_tokens: bool = True, **more: Any) -> Prompt:
        if isinstance(prompt, dict):
            ids = list(prompt["prompt_token_ids"])
            return Prompt(self.text.tokenizer.decode(ids), ids)
        return Prompt(prompt, self.text.tokenizer.encode(prompt))

    async def generate(
        self, prompt: Prompt, params: SamplingParams, request_id: str, *, priority: int = 0, stream: bool = True
    ) -> AsyncIterator[RequestOutput]:
        said = prompt.token_ids or [ord("-")]
        ids: list[int] = []
        most = params.max_tokens or 16
        metrics = RequestMetrics(arrival_time=time.time())
        self.running += 1
        try:
            while len(ids) < most:
                if ids:
                    await asyncio.sleep(self.gap)
                ids.append(said[len(ids) % len(said)])
                over = len(ids) == most
                if stream or over:
                    text = self.text.tokenizer.decode(ids)
                    completion = CompletionOutput(
                        text=text, token_ids=list(ids), finish_reason="length" if over else None
                    )
                    yield RequestOutput(
                        request_id=request_id, prompt=prompt.text, prompt_token_ids=prompt.token_ids,
                        outputs=[completion], finished=over, metrics=metrics,
                    )  # fmt: skip
        finally:
            self.running -= 1

    async def check_health(self) -> None:
        """Always well."""

    def shutdown(self) -> None:
        """There is nothing to end."""


def main(words: Sequence[str] | None = None) -> int:
    from vllm_plugin_server.logs.setup import configure
    from vllm_plugin_server.serve import open_socket, run

    parser = argparse.ArgumentParser(prog="python -m vllm_plugin_server.testing.echo", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--gap", type=float, default=0.1, metavar="S", help="between two tokens; default: 0.1")
    parser.add_argument("--places", type=int, default=100_000, metavar="N", help="outputs at once; default: 100,000")
    args = parser.parse_args(words)
    begun = time.monotonic()
    settings = ServerSettings(port=args.port, max_concurrent_requests=args.places, access_log=False)
    configure(settings.log_level, settings.log_format, [])
    context = ServerContext(
        engine=EchoEngine(args.gap), models={"echo": "base"}, settings=settings, report=dict, work=Work(2, 10.0),
        admission=Admission(args.places), started=time.time(),
    )  # fmt: skip
    listener = open_socket(settings)
    app = make_app(context, [endpoint for endpoint in http_endpoints() if endpoint.path in ROUTES])
    return run(app, context, listener, begun)


if __name__ == "__main__":
    sys.exit(main())
