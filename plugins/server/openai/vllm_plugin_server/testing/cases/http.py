"""HTTP itself, broken: request lines, headers, lengths, chunks, paths, methods."""

from __future__ import annotations

import json
from urllib.parse import quote

from vllm_plugin_server.testing.case import CLOSED, OK, Case
from vllm_plugin_server.testing.cases.good import good

__all__ = ["cases"]

REFUSED = (400, 404, 405, 411, 413, 414, 417, 426, 431, 501, 505, CLOSED)  # a broken request may also just be cut off
LOST = (400, 404)


def cases(model: str) -> list[Case]:
    body = json.dumps(good(model)["/v1/completions"]).encode()
    found = [
        Case(group="http", name=name, raw=raw, want=want, cve=cve, half_close=half)
        for name, raw, want, cve, half in [*_lines(), *_headers(body), *_lengths(body)]
    ]
    found += [
        Case(group="path", name=f"{number:02d} {path[:40]}", method="GET", target=path, want=want, cve=cve)
        for number, (path, want, cve) in enumerate(_paths())
    ]
    return found + _methods()


def _lines() -> list[tuple]:
    get = b"GET %s HTTP/1.1\r\nHost: {host}\r\n\r\n"
    return [
        ("a line of nothing", b"\r\n\r\n", REFUSED, (), True),
        ("bytes of nothing", b"\x00" * 4096, REFUSED, (), True),
        ("TLS to a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 500, REFUSED, (), True),
        ("HTTP/2 at once", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", REFUSED, (), True),
        ("HTTP/0.9", b"GET /health\r\n\r\n", REFUSED, (), True),
        ("HTTP/1.0", b"GET /health HTTP/1.0\r\n\r\n", (200, 400), (), False),
        ("HTTP/9.9", b"GET /health HTTP/9.9\r\nHost: {host}\r\n\r\n", (*REFUSED, 200), (), False),
        ("no version", b"GET /health HTTP/\r\nHost: {host}\r\n\r\n", REFUSED, (), True),
        ("words for a method", b"G E T /health HTTP/1.1\r\nHost: {host}\r\n\r\n", REFUSED, (), True),
        ("a method of 10,000 letters", b"A" * 10_000 + b" /health HTTP/1.1\r\nHost: {host}\r\n\r\n", REFUSED, (), True),
        ("a method in small letters", b"get /health HTTP/1.1\r\nHost: {host}\r\n\r\n", REFUSED, (), True),
        ("line feeds alone", b"GET /health HTTP/1.1\nHost: {host}\n\n", (*REFUSED, 200), (), True),
        ("a path of 200,000 letters", get % (b"/" + b"a" * 200_000), REFUSED, (), False),
        ("a query of 200,000 letters", get % (b"/health?" + b"a" * 200_000), REFUSED, (), False),
        ("a path with raw bytes", get % b"/\xff\xfe\x80", REFUSED, (), False),
        ("a path with a space", get % b"/hea lth", REFUSED, (), True),
        ("a whole address for a path", get % b"http://{host}/health", (200, 400, 404), (), False),
        ("another host's address", get % b"http://evil.example/health", (200, 400, 404, 421), (), False),
        ("a star for a path", get % b"*", REFUSED, (), False),
        ("CONNECT", b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", REFUSED, (), True),
        ("TRACE", b"TRACE /health HTTP/1.1\r\nHost: {host}\r\nCookie: secret\r\n\r\n", REFUSED, (), False),
        ("a line that never ends", b"GET /" + b"a" * 1_000_000, REFUSED, (), True),
    ]


def _headers(body: bytes) -> list[tuple]:
    def get(*lines: bytes) -> bytes:
        return b"\r\n".join([b"GET /health HTTP/1.1", b"Host: {host}", *lines]) + b"\r\n\r\n"

    post = b"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    return [
        ("no Host", b"GET /health HTTP/1.1\r\n\r\n", (200, 400), (), False),
        ("two Hosts", get(b"Host: other.example"), (200, 400), (), False),
        ("a Host with a path", b"GET /v1/models HTTP/1.1\r\nHost: {host}/health?\r\n\r\n", (200, 400, 401),
         ("CVE-2026-48746", "CVE-2026-49468"), False),
        ("a header of 100,000 bytes", get(b"X-Long: " + b"a" * 100_000), REFUSED, ("CVE-2025-48956",), False),
        ("a header of 5,000,000 bytes", get(b"X-Long: " + b"a" * 5_000_000), REFUSED, ("CVE-2025-48956",), False),
        ("1,000 headers", get(*[b"X-%d: a" % i for i in range(1000)]), REFUSED, ("CVE-2025-48956",), False),
        ("100,000 headers", get(*[b"X-%d: a" % i for i in range(100_000)]), REFUSED, (), False),
        ("a header without a colon", get(b"nonsense"), REFUSED, (), True),
        ("a space before the colon", get(b"X-A : b"), (*REFUSED, 200), (), True),
        ("a folded header", get(b"X-A: b", b"  c"), (*REFUSED, 200), (), True),
        ("a NUL in a header", get(b"X-A: a\x00b"), (*REFUSED, 200), (), True),
        ("a carriage return in a header", get(b"X-A: a\rb"), (*REFUSED, 200), (), True),
        ("bytes of 8 bits in a header", get(b"X-A: \xff\xfe"), (200, 400), (), False),
        ("a name of no letters", get(b"@[]: a"), (*REFUSED, 200), (), True),
        ("an empty name", get(b": a"), (*REFUSED, 200), (), True),
        ("a request id of 100,000 bytes", get(b"X-Request-Id: " + b"a" * 100_000), REFUSED, (), False),
        ("a request id that is an address", post + length + b"X-Request-Id: _addr_10.0.0.1:1_x\r\n\r\n" + body, OK,
         ("CVE-2026-116176",), False),
        ("a request id with quotes", post + length + b'X-Request-Id: a"b\\c\r\n\r\n' + body, OK,
         ("CVE-2026-105755",), False),
        ("a range of 10,000 parts", get(b"Range: bytes=" + b",".join([b"0-1"] * 10_000)), (*REFUSED, 200),
         ("CVE-2025-62727",), False),
        ("an upgrade to a socket", get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
         b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), (*REFUSED, 200, 403), (), False),
        ("an upgrade to HTTP/2", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAAA"),
         (*REFUSED, 200), (), False),
        ("a content type of 50,000 bytes", post.replace(b"application/json", b"application/" + b";" * 50_000) + length
         + b"\r\n" + body, (400, 413, 415, 431), ("CVE-2024-24762",), False),
        ("a language of 50,000 bytes", get(b"Accept-Language: " + b"a," * 25_000), (*REFUSED, 200), (), False),
    ]  # fmt: skip


def _lengths(body: bytes) -> list[tuple]:
    post = b"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    smuggled = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"
    return [
        ("no length", post + b"\r\n" + body, REFUSED, (), True),
        ("a negative length", post + b"Content-Length: -1\r\n\r\n" + body, REFUSED, (), True),
        ("a length in words", post + b"Content-Length: ten\r\n\r\n" + body, REFUSED, (), True),
        ("a length with a plus", post + b"Content-Length: +%d\r\n\r\n" % len(body) + body, REFUSED, (), True),
        ("a length in hex", post + b"Content-Length: 0x10\r\n\r\n" + body, REFUSED, (), True),
        ("a length of 10^30", post + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n" + body, REFUSED, (), True),
        ("a length of 10 GB", post + b"Content-Length: 10000000000\r\n\r\n" + body, (413,), ("CVE-2026-55646",), True),
        ("two lengths", post + b"Content-Length: 5\r\nContent-Length: %d\r\n\r\n" % len(body) + body, REFUSED,
         (), True),
        ("a length that is too long", post + b"Content-Length: %d\r\n\r\n" % (len(body) + 9) + body, REFUSED, (), True),
        ("a length that is too short", post + b"Content-Length: 5\r\n\r\n" + body, (400,), (), True),
        ("a length and chunks", post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + smuggled, REFUSED,
         ("CVE-2025-43859",), True),
        ("chunks", chunked + chunks, OK, (), False),
        ("a chunk's size that is none", chunked + b"zz\r\n" + body, REFUSED, (), True),
        ("a negative chunk", chunked + b"-5\r\n" + body, REFUSED, (), True),
        ("a chunk of 2^70", chunked + b"fffffffffffffffffff\r\n" + body, REFUSED, (), True),
        ("a chunk's end that is none", chunked + b"5\r\nhelloXX0\r\n\r\n", REFUSED, ("CVE-2025-43859",), True),
        ("an extension of 100,000 bytes", chunked + b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
         (*REFUSED,), (), True),
        ("chunks that stop", chunked + b"5\r\nhel", REFUSED, (), True),
        ("40 MB in chunks", chunked + (b"100000\r\n" + b"a" * 0x100000 + b"\r\n") * 40 + b"0\r\n\r\n", (413,),
         ("CVE-2026-55646",), False),
        ("an encoding that nobody has", post + b"Transfer-Encoding: magic\r\n\r\n" + body, REFUSED, (), True),
        ("chunked twice", post + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + chunks, (*REFUSED, 200), (), True),
        ("chunked with a tab", post + b"Transfer-Encoding:\tchunked\r\n\r\n" + chunks, (*REFUSED, 200), (), True),
        ("xchunked", post + b"Transfer-Encoding: xchunked\r\n\r\n" + smuggled, REFUSED, (), True),
        ("a trailer of 200,000 bytes", chunked + b"%x\r\n%s\r\n0\r\n" % (len(body), body) + b"X: " + b"a" * 200_000
         + b"\r\n\r\n", (*REFUSED, 200), (), True),
        ("a body on GET", b"GET /health HTTP/1.1\r\nHost: {host}\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
         (200, 400), (), False),
        ("expecting magic", post + b"Expect: magic\r\nContent-Length: %d\r\n\r\n" % len(body) + body, (*REFUSED, 200),
         (), True),
    ]  # fmt: skip


def _paths() -> list[tuple]:
    inside = quote("/etc/passwd", safe="")
    return [
        ("/no/such/route", LOST, ()),
        ("/v1/no-such-route", LOST, ()),
        ("/v1", LOST, ()),
        ("//v1//models", (200, *LOST), ()),
        ("/V1/MODELS", LOST, ()),
        ("/v1/models/", (200, 307, 308, *LOST), ()),
        ("/v1/models/no-such-model", LOST, ()),
        ("/v1/models/..%2f..%2fetc%2fpasswd", LOST, ()),
        ("/../../../../etc/passwd", LOST, ()),
        ("/%2e%2e/%2e%2e/etc/passwd", LOST, ("CVE-2026-24208",)),
        ("/page/../../../../etc/passwd", LOST, ("CVE-2026-47627",)),
        (f"/page/..%2f..%2f..%2f..%2f{inside}", LOST, ("CVE-2026-47627",)),
        ("/page/%2e%2e/settings.py", LOST, ("CVE-2026-47627",)),
        ("/page/..\\..\\settings.py", LOST, ()),
        ("/static/%00", LOST, ()),
        ("/v1/models%00", LOST, ()),
        ("/v1/models%0d%0aSet-Cookie:a=b", LOST, ()),
        ("/%", LOST, ()),
        ("/%zz", LOST, ()),
        ("/v1/models?" + "a=b&" * 5000, (200, 400, 414, 431), ("CVE-2026-53537",)),
        ("/v1/models?x=%ff%fe", (200, 400), ()),
        ("/start_profile", LOST, ()),
        ("/sleep", LOST, ()),
        ("/collective_rpc", LOST, ()),
        ("/reset_prefix_cache", (*LOST, 405), ()),
        ("/update_weights_from_tensor", LOST, ("CVE-2025-10164",)),
        ("/get_tokenizer", LOST, ("CVE-2026-7669",)),
        ("/docs", (200, *LOST), ()),
        ("/debug", LOST, ()),
        ("/.env", LOST, ()),
        ("/v1/load_lora_adapter", (*LOST, 405), ()),
    ]


def _methods() -> list[Case]:
    found = []
    for target in ("/v1/completions", "/v1/chat/completions", "/v1/models", "/tokenize", "/health", "/metrics"):
        for method in ("PUT", "PATCH", "DELETE", "BREW"):
            found.append(
                Case(
                    group="method",
                    name=f"{method} {target}",
                    method=method,
                    target=target,
                    body=b"{}",
                    want=(404, 405, 501, 400),
                    needs=target,
                )
            )
    for target in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"):
        found.append(Case(group="method", name=f"GET {target}", method="GET", target=target, want=(404, 405)))
    for target in ("/health", "/v1/models"):
        found.append(Case(group="method", name=f"POST {target}", target=target, body=b"{}", want=(404, 405, 200)))
        found.append(Case(group="method", name=f"HEAD {target}", method="HEAD", target=target, want=(200, 405)))
    return found
