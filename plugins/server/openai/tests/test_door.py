"""With keys, every route is behind the door but /health, /ping and the page's files, whatever the path looks like."""

from __future__ import annotations

import socket

import pytest

KEYS = ("first-secret", "second-secret")


@pytest.fixture(scope="module")
def closed(start):
    return start("--api-key", KEYS[0], "--api-key", KEYS[1], env={"VLLM_API_KEY": "third-secret"})


def raw(server, request: bytes) -> int:
    """The status of a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        return int(connection.recv(64).split()[1])


def test_each_key_opens_every_way_that_it_may_be_brought(closed):
    for key in (*KEYS, "third-secret"):
        assert closed.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert closed.get("/v1/models", headers={"authorization": f"bearer {key}"}).status_code == 200
        assert closed.get("/v1/models", headers={"x-api-key": key}).status_code == 200


def test_every_listed_route_is_closed(closed):
    import vllm_plugin_server

    for endpoint in vllm_plugin_server.http_endpoints():
        path = endpoint.path.replace("{model:path}", "x").replace("{response_id}", "x").replace("{file}", "x")
        for method in endpoint.methods:
            status = closed.client().request(method, path).status_code
            open_ = path in ("/health", "/ping", "/") and method == "GET"
            assert status == (200 if open_ else 401), (method, path)


TRICKS = [
    b"GET //v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health/../v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /Health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health%2f..%2fv1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%761/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models?path=/health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models#/health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health;/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: /health?\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x/health\r\nX-Original-URL: /health\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Forwarded-Prefix: /health\r\nX-Rewrite-URL: /health\r\n\r\n",
    b"OPTIONS /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-secre\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-secret2\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer FIRST-SECRET\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: first-secret\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Basic first-secret\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-secret,second-secret\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer first-secret\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nX-API-Key: first-secret\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-API-Key: \r\n\r\n",
    b"GET /v1/models?api_key=first-secret HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nCookie: api_key=first-secret\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-secret\x00\r\n\r\n",
    b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.parametrize("request_", TRICKS, ids=range(len(TRICKS)))
def test_no_trick_opens_the_door(closed, request_):
    assert raw(closed, request_) in (400, 401)


def test_a_refusal_has_the_shape_of_all_errors_and_the_log_no_key(closed):
    answer = closed.post("/v1/chat/completions", {}, headers={"authorization": "Bearer nearly-secret"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not [key for key in (*KEYS, "third-secret", "nearly-secret") if key in closed.log]


def test_a_key_that_a_comma_has_made_two_short_ones_is_refused():
    from vllm_plugin_server.settings import ServerSettings

    assert ServerSettings(api_key=["short"]).api_key == ["short"]  # nothing was taken apart
    assert len(ServerSettings(api_key=["first-key", "second-key"]).api_key) == 2
    with pytest.raises(ValueError, match=r"one of the 2 keys of api_key has 4 characters.*a comma is between keys"):
        ServerSettings(api_key=["long-enough", "tail"])


def test_each_key_has_cached_prefixes_of_its_own(closed):
    def cached(key):
        body = {"prompt": "some words that are asked by two customers" * 2, "max_tokens": 1}
        answer = closed.post("/v1/completions", body, headers={"x-api-key": key})
        return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(KEYS[0]) == 0
    assert cached(KEYS[0]) > 0
    assert cached(KEYS[1]) == 0
