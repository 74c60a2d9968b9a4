"""Where spans are sent: the exporter for an endpoint, or why there is none."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

__all__ = ["TracingError", "open_provider"]

GRPC_PORT = 4317  # OpenTelemetry's convention; 4318 is HTTP's


class TracingError(ValueError):
    """Traces were asked for and cannot be sent."""


def open_provider(endpoint: str) -> Any:
    """A tracer provider that sends to ``endpoint`` in batches, from a thread of its own.

    http://host:4318 or a whole http(s) URL speaks OTLP over HTTP; grpc://, or port 4317, speaks gRPC.
    ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`` (or ``OTEL_EXPORTER_OTLP_PROTOCOL``) decides before both. What else
    OpenTelemetry's environment variables say (service name, headers, sampler) holds.
    """
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(
            f"--otlp-traces-endpoint {endpoint} was asked for and OpenTelemetry is not installed.\n"
            f"  why     {error}\n"
            "  install pip install 'vllm-plugin-server[otel]'"
        ) from None
    exporter = _exporter(endpoint)
    named = os.environ.get("OTEL_SERVICE_NAME") or "vllm-core"
    resource = Resource.create({SERVICE_NAME: named, SERVICE_VERSION: version("vllm-core")})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(endpoint: str) -> Any:
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https", "grpc", "grpcs") or not url.hostname:
        raise TracingError(
            f"--otlp-traces-endpoint {endpoint!r} is no address of a collector.\n"
            "  instead http://HOST:4318 (OTLP over HTTP) or grpc://HOST:4317"
        )
    stated = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    grpc = url.scheme in ("grpc", "grpcs") or url.port == GRPC_PORT
    protocol = stated or ("grpc" if grpc else "http/protobuf")
    if protocol == "http/protobuf":
        return _http(endpoint, url)
    if protocol == "grpc":
        return _grpc(endpoint, url)
    raise TracingError(
        f"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL={protocol!r} is not spoken here.\n  known   http/protobuf, grpc"
    )


def _http(endpoint: str, url: Any) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise TracingError(
            f"--otlp-traces-endpoint {endpoint}: OTLP over HTTP cannot be spoken.\n"
            f"  why     {error}\n"
            "  install pip install 'vllm-plugin-server[otel]'"
        ) from None
    if url.scheme not in ("http", "https"):
        raise TracingError(f"--otlp-traces-endpoint {endpoint}: http/protobuf needs http:// or https://")
    whole = endpoint if url.path not in ("", "/") else endpoint.rstrip("/") + "/v1/traces"
    return OTLPSpanExporter(endpoint=whole)


def _grpc(endpoint: str, url: Any) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        port = url.port or GRPC_PORT
        raise TracingError(
            f"--otlp-traces-endpoint {endpoint}: OTLP over gRPC needs a package that is not installed.\n"
            f"  why     {error}\n"
            "  install pip install opentelemetry-exporter-otlp-proto-grpc\n"
            f"  instead http://{url.hostname}:{4318 if port == GRPC_PORT else port}, if the collector takes HTTP"
        ) from None
    return OTLPSpanExporter(endpoint=f"{url.hostname}:{url.port or GRPC_PORT}", insecure=url.scheme in ("http", "grpc"))
