"""Who may join: a file with a secret that all nodes have, and the keys that follow from it."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import attrs
import zmq
from zmq.utils import z85

from vllm_core.config.errors import SettingError

__all__ = ["Keys", "read_keys"]

LEAST = 32  # bytes
SALT = b"vllm-core data parallel 1 "


@attrs.frozen
class Keys:
    """Of one side, and the public one of the other: CURVE's, as text in Z85."""

    secret: bytes = attrs.field(repr=False)
    public: bytes
    other: bytes


def read_keys(path: str, *, gate: bool) -> Keys:
    """Raises ``SettingError`` if the file cannot be used, and never says what is in it."""
    said = f"data_parallel_secret_file {path}"
    if not zmq.has("curve"):
        raise SettingError(f"{said}: this build of ZeroMQ has no CURVE, so nodes could not be told from strangers")
    try:
        mode, secret = Path(path).stat().st_mode, Path(path).read_bytes().strip()
    except OSError as error:
        raise SettingError(f"{said} cannot be read: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise SettingError(f"{said} can be read by others than its owner.\n  instead chmod 600 {path}")
    if len(secret) < LEAST:
        raise SettingError(
            f"{said} holds {len(secret)} bytes, and a secret has {LEAST} at least.\n"
            f"  instead head -c 32 /dev/urandom | base64 > {path}; the same file for all nodes"
        )
    both = {side: _key(secret, side) for side in (b"gate", b"node")}
    mine, other = (both[b"gate"], both[b"node"]) if gate else (both[b"node"], both[b"gate"])
    return Keys(secret=mine, public=zmq.curve_public(mine), other=zmq.curve_public(other))


def _key(secret: bytes, side: bytes) -> bytes:
    return z85.encode(hashlib.scrypt(secret, salt=SALT + side, n=1 << 14, r=8, p=1, dklen=32))
