"""Tricks to pass a door without its key (R17). Only for a server that was started with one."""

from __future__ import annotations

from vllm_plugin_server.testing.case import CLOSED, Case
from vllm_plugin_server.testing.wire import Address, request_bytes

__all__ = ["tricks"]

KEPT_OUT = (400, 401, 403, 404, 405, CLOSED)


def tricks(address: Address, key: str, model: str) -> list[Case]:
    """Each would list the models or generate; none may be answered with 200."""
    bare = Address(address.host, address.port, address.tls)
    found: list[Case] = []

    def add(name: str, raw: bytes, cve: tuple[str, ...] = ()) -> None:
        found.append(Case(group="auth", name=name, raw=raw, want=KEPT_OUT, cve=cve))

    def get(name: str, *headers: tuple[str, str], target: str = "/v1/models", method: str = "GET", **more) -> None:
        add(name, request_bytes(bare, method, target, None, headers), **more)

    def word(name: str, value: str, header: str = "Authorization") -> None:
        get(name, (header, value), cve=("CVE-2025-59425",))

    get("no header")
    word("an empty header", "")
    word("no key", "Bearer ")
    word("another key", "Bearer wrong")
    word("the key's beginning", f"Bearer {key[:-1]}")
    word("the key's first 20 letters", f"Bearer {key[:20]}" if len(key) > 20 else f"Bearer {key[:1]}")
    word("the key and more", f"Bearer {key}x")
    word("the key in capitals", f"Bearer {key.swapcase()}")
    word("the key backwards", f"Bearer {key[::-1]}")
    word("the key without a scheme", key)
    word("another scheme", f"Basic {key}")
    word("a NUL after the key", f"Bearer {key}\x00")
    word("a comma between keys", f"Bearer wrong,{key}")
    word("None", "Bearer None")
    word("null", "Bearer null")
    word("a list", f'Bearer ["{key}"]')
    word("a pattern", "Bearer .*")
    word("an injection", "Bearer ' OR '1'='1")
    get("another key, then the key", ("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {key}"))
    word("X-API-Key that is wrong", "wrong", "X-API-Key")
    get("the key in the address", target=f"/v1/models?api_key={key}")
    get("the key in a cookie", ("Cookie", f"api_key={key}"))
    get("a forwarded path", ("X-Original-URL", "/health"))
    get("a rewritten path", ("X-Rewrite-URL", "/health"))
    get("a forwarded prefix", ("X-Forwarded-Prefix", "/health"))
    get("a method in a header", ("X-HTTP-Method-Override", "OPTIONS"))
    get("a Host with an open path", ("Host", f"{address.host}:{address.port}/health?"), cve=("CVE-2026-48746",))
    get("a Host that ends the path", ("Host", "x/health#"), cve=("CVE-2026-49468",))
    get("an open path before it", target="/health/../v1/models")
    get("an open path, encoded", target="/health%2f..%2fv1/models")
    get("two slashes", target="//v1/models")
    get("a whole address", target="http://x/health/../v1/models")
    get("a semicolon", target="/v1/models;/health")
    get("/tokenize", target="/tokenize", method="POST", cve=("GHSA-h3rc-6mm3-gc2m",))
    get("/metrics", target="/metrics")
    body = b'{"model":"%s","prompt":"x","max_tokens":1}' % model.encode()
    add("completions", request_bytes(bare, "POST", "/v1/completions", body))
    return found
