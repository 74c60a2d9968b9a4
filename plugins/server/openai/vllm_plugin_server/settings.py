"""The server's settings: flags of ``serve``, ``[plugin.server]`` of vllm.toml, ``VLLM_CORE_SERVER_*``; vLLM's names."""

from __future__ import annotations

from typing import Any

import attrs

from vllm_core.config.setting import setting
from vllm_plugin_server.metrics.prefix import check_prefix

__all__ = ["ServerSettings"]

SHORTEST_KEY = 8  # characters, where there are several keys


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Where the server listens, who may ask, and how much at once."""

    host: str = setting("127.0.0.1", group="server", help="Address to listen on. 0.0.0.0: all of this machine's.")
    port: int = setting(8000, group="server", low=0, high=65535, help="Port to listen on; 0: any that is free.")
    uds: str | None = setting(None, group="server", help="Path of a Unix socket to listen on, instead of a port.")
    root_path: str = setting("", group="server", help="Prefix of all paths, where a proxy has taken one away.")
    ssl_keyfile: str | None = setting(None, group="server", help="File with the private key for HTTPS.")
    ssl_certfile: str | None = setting(None, group="server", help="File with the certificate for HTTPS.")

    served_model_name: list[str] = setting(
        [], group="API", help="Names that requests may give the model; the first stands in answers. Default: MODEL."
    )
    response_role: str = setting("assistant", group="API", help="Role of the messages that chats are answered with.")
    lora_modules: list[str] = setting([], group="API", help="Not built yet: adapters. Refused if given.")
    lenient_requests: bool = setting(
        False, group="API", help="Accept fields of requests that nobody knows, instead of answering 400."
    )
    trust_request_chat_template: bool = setting(
        False, group="API", help="Let requests bring a chat_template of their own: a program that the server then runs."
    )
    response_store: int = setting(
        1000,
        group="API",
        low=0,
        unit="responses",
        help="Responses of /v1/responses that are kept in memory for previous_response_id; 0: none.",
        trade="Higher: longer-lived conversations. Lower: less memory.",
    )
    response_store_mib: int = setting(
        256, group="API", low=0, unit="MiB", help="Most memory for them; the least recently used go first."
    )
    chat_template_content_format: str = setting(
        "auto",
        group="API",
        choices=("auto", "string", "openai"),
        help="How the chat template gets a message's content: as text, as OpenAI's parts, or as it reads it.",
    )
    default_chat_template_kwargs: dict[str, Any] = setting(
        {}, group="API", help="Arguments of the chat template, beneath those of each request's chat_template_kwargs."
    )
    enable_force_include_usage: bool = setting(
        False, group="API", help="End every stream with its usage, as if its stream_options had asked for it."
    )
    return_tokens_as_token_ids: bool = setting(
        False, group="API", help='Name tokens "token_id:N" in log-probabilities, as requests can ask for, too.'
    )
    enable_prompt_tokens_details: bool = setting(
        True, group="API", help="Tell in usage how many tokens of the prompt were cached."
    )

    api_key: list[str] = setting(
        [],
        group="access",
        help="Keys, one of which every request must bring, as a bearer token or x-api-key; only /health, /ping and the"
        " page's own files need none. May be given several times; a comma is between keys, never in one. Also"
        " VLLM_API_KEY in the environment.",
    )
    allowed_origins: list[str] = setting(
        [], group="access", help="Origins whose web pages may read answers (CORS); *: all. Default: none."
    )
    allowed_methods: list[str] = setting(["*"], group="access", help="Methods that such pages may use.")
    allowed_headers: list[str] = setting(["*"], group="access", help="Headers that such pages may send.")
    allow_credentials: bool = setting(False, group="access", help="Whether such pages may send credentials.")

    max_concurrent_requests: int = setting(
        1024,
        group="load",
        low=1,
        unit="outputs",
        help="Outputs that are computed or wait to be; a request beyond that gets 429 with Retry-After at once.",
        trade="Higher: longer bursts are served. Lower: less waiting, less memory.",
    )
    request_timeout: float | None = setting(
        None, group="load", low=0.001, unit="seconds", help="Longest time for one request, answer included."
    )
    engine_restarts: int = setting(
        3,
        group="load",
        low=0,
        unit="restarts",
        help="Engines started in place of ones that have ended, within ten minutes; then the server ends with code 1.",
    )
    carry_over: bool = setting(
        False,
        group="load",
        help="Let requests of an engine that was killed go on in the next one, token for token, instead of failing.",
    )
    api_server_count: int = setting(
        1,
        group="load",
        low=1,
        high=64,
        unit="processes",
        help="Processes that speak HTTP in front of the one engine; each takes its share of the connections.",
        trade="More: many small requests at once. One: less memory, and /v1/responses that can be gone on from.",
    )
    headless: bool = setting(
        False,
        group="load",
        help="Serve no HTTP: run engines of a further node for the server at --data-parallel-address.",
    )
    shutdown_timeout: float = setting(
        30.0, group="load", low=0, unit="seconds", help="After SIGTERM, how long running requests may go on."
    )

    log_level: str = setting(
        "info",
        group="logs",
        choices=("debug", "info", "warning", "error", "critical"),
        help="The least important messages that are shown.",
    )
    log_format: str = setting(
        "text", group="logs", choices=("text", "json"), help="Lines for people, or a JSON object a line for programs."
    )
    access_log: bool = setting(True, group="logs", help="Log a line for each request.")
    log_requests: bool = setting(
        False, group="logs", help="Log when a prompt enters the engine and when its answer ends; no word of either."
    )
    log_prompts: int = setting(
        0, group="logs", low=0, unit="characters", help="Of prompts and answers, how much is logged. 0: nothing."
    )
    metrics_prefix: str = setting(
        "vllm:",
        group="figures",
        help="What the names of the figures of /metrics begin with, vLLM's unless told otherwise.",
    )
    otlp_traces_endpoint: str | None = setting(
        None, group="figures", help="Collector that OpenTelemetry traces are sent to. Needs vllm-plugin-server[otel]."
    )

    def __attrs_post_init__(self) -> None:
        if self.lora_modules:
            raise ValueError(f"lora_modules={self.lora_modules!r:.80}: adapters are not built yet; leave it out")
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise ValueError("ssl_keyfile and ssl_certfile are given together, or neither")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ValueError(f"root_path must look like /prefix, not {self.root_path!r:.80}")
        check_prefix(self.metrics_prefix)
        if any(not key or not key.isascii() or not key.isprintable() or " " in key for key in self.api_key):
            raise ValueError("api_key must be printable ASCII without spaces")
        if len(self.api_key) > 1 and (short := min(map(len, self.api_key))) < SHORTEST_KEY:
            raise ValueError(
                f"one of the {len(self.api_key)} keys of api_key has {short} characters; of several, each needs"
                f" at least {SHORTEST_KEY}: a comma is between keys, so that one with a comma in it became two"
            )

    def shown(self) -> dict[str, Any]:
        """The settings without secrets."""
        return {**attrs.asdict(self), "api_key": f"{len(self.api_key)} keys"}
