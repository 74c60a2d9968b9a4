"""One door: with keys set, every request must bring one, but for two paths. Judged by the raw path, before routing."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any

from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.page.open import OPEN as PAGE

__all__ = ["Door"]

OPEN = ("/health", "/ping", *PAGE)  # the page's files tell nothing of the model; what it shows needs a key


class Door:
    """Keys are compared as digests, each with each, so that time tells nothing about them."""

    def __init__(self, keys: Iterable[str], root_path: str = "") -> None:
        self._digests = [_digest(key.encode()) for key in keys]
        self._open = {(root_path + path).encode() for path in OPEN}

    def check(self, scope: dict[str, Any]) -> str:
        """Whose request it is, as text that does not tell the key; "" without keys. Else ``ApiError`` 401."""
        if not self._digests:
            return ""
        # The path as it came: nothing that decoding or a Host header makes of it opens the door.
        if scope["raw_path"] in self._open and scope["method"] in ("GET", "HEAD"):
            return ""
        given = _given(scope["headers"])
        if given is None:
            raise _refused("the request brings no API key (Authorization: Bearer KEY, or X-API-Key: KEY)")
        if not (digest := self.known(given)):
            raise _refused("the API key is wrong")
        return digest

    def known(self, given: bytes) -> str:
        """The digest of a key that is known, in hexadecimal; "" of any other, after the same time for all of a length.

        `python -m vllm_plugin_server.testing timing` measures that.
        """
        digest = _digest(given)
        # A list: all are compared, also after one that is right.
        found = any([hmac.compare_digest(digest, known) for known in self._digests])  # noqa: C419
        return digest.hex() if found else ""


def _given(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The one key in the headers; None without one, or where two of a kind leave it open which counts."""
    bearers = [value for name, value in headers if name == b"authorization"]
    keys = [value for name, value in headers if name == b"x-api-key"]
    if len(bearers) > 1 or len(keys) > 1:
        return None
    if bearers:
        scheme, _, key = bearers[0].partition(b" ")
        return key.strip(b" ") if scheme.lower() == b"bearer" and key.strip(b" ") else None
    return keys[0] if keys and keys[0] else None


def _refused(why: str) -> ApiError:
    return ApiError(401, why, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
