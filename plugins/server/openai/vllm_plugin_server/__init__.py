"""The OpenAI-compatible server as a plugin of vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.plugin import Command, Endpoint, hookimpl

HOOK_API = 1
_HERE = "vllm_plugin_server"


@hookimpl
def settings() -> str:
    return f"{_HERE}.settings:ServerSettings"


@hookimpl
def cli_commands() -> list[Command]:
    return [
        Command("serve", f"{_HERE}.command:Serve", "serve a model over HTTP, as OpenAI does"),
        Command(
            "bench serve", f"{_HERE}.bench.serve:BenchServe", "what clients of a running server wait for, under load"
        ),
        Command("run-batch", f"{_HERE}.batch.command:RunBatch", "answer a file of requests in OpenAI's batch format"),
    ]


@hookimpl
def http_endpoints() -> list[Endpoint]:
    return [
        Endpoint("/v1/chat/completions", f"{_HERE}.chat.route:make", ("POST",), "answer a conversation"),
        Endpoint("/v1/completions", f"{_HERE}.completions.route:make", ("POST",), "continue texts"),
        Endpoint("/v1/responses", f"{_HERE}.responses.route:create", ("POST",), "answer, as items that can be kept"),
        Endpoint("/v1/responses/input_tokens", f"{_HERE}.responses.route:input_tokens", ("POST",), "count tokens"),
        Endpoint("/v1/responses/{response_id}", f"{_HERE}.responses.kept:retrieve", ("GET",), "a kept response"),
        Endpoint("/v1/responses/{response_id}", f"{_HERE}.responses.kept:delete", ("DELETE",), "forget a response"),
        Endpoint("/v1/responses/{response_id}/cancel", f"{_HERE}.responses.kept:cancel", ("POST",), "end a response"),
        Endpoint(
            "/v1/responses/{response_id}/input_items", f"{_HERE}.responses.kept:input_items", ("GET",), "its input"
        ),
        Endpoint("/v1/messages", f"{_HERE}.messages.route:messages", ("POST",), "answer, as Anthropic does"),
        Endpoint("/v1/messages/count_tokens", f"{_HERE}.messages.route:count_tokens", ("POST",), "count tokens"),
        Endpoint("/v1/models", f"{_HERE}.models:listing", ("GET",), "the models that are served"),
        Endpoint("/v1/models/{model:path}", f"{_HERE}.models:one", ("GET",), "one of them"),
        Endpoint("/tokenize", f"{_HERE}.tokens:tokenize", ("POST",), "token ids of a text or a conversation"),
        Endpoint("/detokenize", f"{_HERE}.tokens:detokenize", ("POST",), "the text of token ids"),
        Endpoint("/health", f"{_HERE}.health:health", ("GET",), "200 while the engine lives, else 503"),
        Endpoint("/ping", f"{_HERE}.health:health", ("GET", "POST"), "as /health"),
        Endpoint("/version", f"{_HERE}.health:version", ("GET",), "versions, plugins and what was chosen"),
        Endpoint("/load", f"{_HERE}.metrics.routes:load", ("GET",), "how busy the server is"),
        Endpoint("/metrics", f"{_HERE}.metrics.routes:metrics", ("GET",), "figures, as Prometheus reads them"),
        Endpoint("/", f"{_HERE}.page.routes:index", ("GET",), "a page: what runs, how it is doing, a chat"),
        Endpoint("/page/{file}", f"{_HERE}.page.routes:file", ("GET",), "the page's files"),
        Endpoint("/page/about", f"{_HERE}.page.routes:about", ("GET",), "what the page shows of the server"),
        Endpoint("/openapi.json", f"{_HERE}.openapi:document", ("GET",), "this interface, as OpenAPI 3.1"),
        Endpoint("/docs", f"{_HERE}.openapi:page", ("GET",), "this interface, as a page"),
    ]
