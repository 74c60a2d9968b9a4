"""Spans of requests, read back from an exporter in memory; and what is said where traces cannot be sent."""

import subprocess
import sys
import time
from types import SimpleNamespace as Bag

import pytest
from vllm_plugin_server.observe import Call
from vllm_plugin_server.tracing import check
from vllm_plugin_server.tracing.export import TracingError, open_provider

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans():
    """(observer, exporter): what the observer's spans are exported to."""
    pytest.importorskip("opentelemetry.sdk", reason="needs vllm-plugin-server[otel]")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from vllm_plugin_server.tracing.spans import CallSpans

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return CallSpans(provider, "tiny"), exporter


def call(**fields):
    params = Bag(temperature=0.5, top_p=0.9, max_tokens=8, n=2)
    return Call("req-1-0", "/v1/completions", "tiny", 11, params, **fields)


def output(now):
    metrics = Bag(
        arrival_time=now - 4, scheduled_time=now - 3, first_token_time=now - 2, finished_time=now, num_preemptions=0
    )
    samples = [Bag(token_ids=[1, 2, 3], finish_reason="stop"), Bag(token_ids=[1], finish_reason="length")]
    return Bag(outputs=samples, metrics=metrics, num_cached_tokens=5)


def test_a_span_has_vllms_attributes(spans):
    observer, exporter = spans
    now = time.time()
    observer.ended(call(arrived=now - 4), "stop", output(now))
    (span,) = exporter.get_finished_spans()
    assert span.name == "llm_request"
    assert span.kind.name == "SERVER"
    assert span.parent is None
    found = dict(span.attributes)
    assert found.pop("gen_ai.latency.e2e") == pytest.approx(4, abs=0.5)
    assert found == {
        "gen_ai.request.id": "req-1-0",
        "gen_ai.response.model": "tiny",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.n": 2,
        "gen_ai.usage.prompt_tokens": 11,
        "gen_ai.usage.cached_tokens": 5,
        "gen_ai.usage.completion_tokens": 4,
        "gen_ai.usage.num_sequences": 2,
        "gen_ai.response.finish_reasons": ("stop", "length"),
        "gen_ai.latency.time_in_queue": pytest.approx(1),
        "gen_ai.latency.time_to_first_token": pytest.approx(2),
        "gen_ai.latency.time_in_model_prefill": pytest.approx(1),
        "gen_ai.latency.time_in_model_decode": pytest.approx(2),
        "gen_ai.latency.time_in_model_inference": pytest.approx(3),
        "http.route": "/v1/completions",
    }
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(4, abs=0.5)


def test_a_span_belongs_to_the_clients_trace(spans):
    observer, exporter = spans
    observer.ended(call(trace_headers={"traceparent": f"00-{TRACE}-{SPAN}-01"}), "stop", None)
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN


@pytest.mark.parametrize(
    "header", ["", "00-xyz-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\x00" * 55, "ff" * 500]
)
def test_a_bad_traceparent_begins_a_trace_of_its_own(spans, header):
    observer, exporter = spans
    observer.ended(call(trace_headers={"traceparent": header}), "stop", None)
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_a_failed_request_is_an_error_without_its_words(spans):
    observer, exporter = spans
    observer.ended(call(), "error", None)
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code.name == "ERROR"
    assert not span.status.description
    assert span.attributes["gen_ai.response.finish_reasons"] == ("error",)


def test_without_the_extra_the_refusal_says_what_to_install():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from vllm_plugin_server.tracing.export import open_provider, TracingError\n"
        "try: open_provider('http://localhost:4318')\n"
        "except TracingError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'vllm-plugin-server[otel]'" in done.stdout, done.stderr
    assert "--otlp-traces-endpoint http://localhost:4318" in done.stdout


def test_importing_the_server_loads_no_opentelemetry():
    code = "import sys, vllm_plugin_server.tracing; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:4318", "ftp://host"])
def test_an_address_is_checked_before_a_model_is_loaded(endpoint):
    pytest.importorskip("opentelemetry.sdk", reason="needs vllm-plugin-server[otel]")
    settings = Bag(otlp_traces_endpoint=endpoint)
    if endpoint == "ftp://host":
        with pytest.raises(TracingError, match="no address of a collector"):
            check(settings)
    else:
        check(settings)


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://host", "http://", "file:///etc/passwd"])
def test_what_is_no_collector_is_refused(endpoint):
    pytest.importorskip("opentelemetry.sdk", reason="needs vllm-plugin-server[otel]")
    with pytest.raises(TracingError, match="no address of a collector"):
        open_provider(endpoint)


def test_an_unknown_protocol_is_refused(monkeypatch):
    pytest.importorskip("opentelemetry.sdk", reason="needs vllm-plugin-server[otel]")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
    with pytest.raises(TracingError, match="is not spoken here"):
        open_provider("http://localhost:4318")


def test_a_collector_that_is_not_there_does_not_hold_up_the_end():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs vllm-plugin-server[otel]")
    import asyncio
    import socket

    from vllm_plugin_server.tracing import LAST_SPANS, attach

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        context = Bag(
            settings=Bag(otlp_traces_endpoint=endpoint), models={"tiny": "base"}, observers=[], on_shutdown=[]
        )
        attach(context)
        context.observers[0].ended(call(), "stop", None)
        begun = time.monotonic()
        asyncio.run(context.on_shutdown[0]())
        assert time.monotonic() - begun < LAST_SPANS + 1


def test_spans_reach_a_collector_over_http():
    """A collector of twenty lines on loopback: one POST of protobuf to /v1/traces, with the span's name in it."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs vllm-plugin-server[otel]")
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    from vllm_plugin_server.tracing.spans import CallSpans

    got = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        import gzip

        provider = open_provider(f"http://127.0.0.1:{server.server_port}")
        CallSpans(provider, "tiny").ended(call(), "stop", output(time.time()))
        provider.shutdown()
    finally:
        server.shutdown()
        server.server_close()
    ((path, body),) = got
    plain = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    assert path == "/v1/traces"
    assert b"llm_request" in plain
    assert b"gen_ai.usage.prompt_tokens" in plain
    assert b"vllm-core" in plain
