"""What is written of requests: a line for each HTTP exchange, and if wanted for each call of the engine."""

from __future__ import annotations

import logging
from typing import Any

from vllm_plugin_server.logs.formats import FACTS

__all__ = ["AccessLog", "RequestLog", "attach"]

access = logging.getLogger("vllm_plugin_server.access")
requests = logging.getLogger("vllm_plugin_server.requests")

# Asked every few seconds by machines and by the page: written at "debug" only, unless they fail.
QUIET = frozenset(("/", "/health", "/ping", "/load", "/metrics", "/page/{file}"))
# Of a request's parameters, those that are numbers: nothing that could hold text of a prompt.
SAFE = ("n", "temperature", "top_p", "top_k", "min_p", "max_tokens", "min_tokens", "seed", "logprobs")


class AccessLog:
    """The route's template stands in the line, not the path: what clients put into paths stays out of logs."""

    def answered(self, exchange: Any) -> None:
        facts = {
            "method": exchange.method[:16],
            "route": exchange.route or "none",
            "status": exchange.status,
            "seconds": round(exchange.seconds, 4),
            "client": exchange.client,
            "request_id": exchange.request_id,
        }
        if exchange.label and exchange.label != exchange.request_id:
            facts["label"] = exchange.label
        if exchange.disconnected:
            facts["disconnected"] = True
        quiet = exchange.route in QUIET and exchange.status < 400
        access.log(logging.DEBUG if quiet else logging.INFO, "answered", extra={FACTS: facts})


class RequestLog:
    """characters   of the prompt and of each answer that are written; 0: none, which is the default"""

    def __init__(self, characters: int = 0) -> None:
        self._characters = characters

    def began(self, call: Any) -> None:
        facts = {"call": call.request_id, "route": call.route, "prompt_tokens": call.prompt_tokens}
        facts |= {name: v for name in SAFE if (v := getattr(call.params, name, None)) is not None}
        requests.info("began", extra={FACTS: facts})

    def ended(self, call: Any, reason: str, output: Any) -> None:
        facts: dict[str, Any] = {"call": call.request_id, "finish_reason": reason}
        if output is not None:
            facts["output_tokens"] = sum(len(sample.token_ids) for sample in output.outputs)
            facts["cached_tokens"] = output.num_cached_tokens
            if self._characters:
                facts["prompt"] = (output.prompt or "")[: self._characters]
                facts["answers"] = [sample.text[: self._characters] for sample in output.outputs]
        requests.info("ended", extra={FACTS: facts})


def attach(context: Any) -> None:
    """Let a server write what its settings ask for: ``access_log``, ``log_requests``, ``log_prompts``."""
    settings = context.settings
    if settings.access_log:
        context.observers.append(AccessLog())
    if settings.log_requests or settings.log_prompts:
        context.observers.append(RequestLog(settings.log_prompts))
