"""Where a gate listens, and where nodes look for it."""

from __future__ import annotations

import socket
from typing import Any

import zmq

from vllm_core.config.errors import SettingError

__all__ = ["bind", "endpoint_at"]


def bind(outer: Any, address: str, port: int) -> str:
    """To this address and no other."""
    try:
        family, *_, found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        if family == socket.AF_INET6:
            outer.setsockopt(zmq.IPV6, 1)
        endpoint = f"tcp://[{found[0]}]:{port}" if family == socket.AF_INET6 else f"tcp://{found[0]}:{port}"
        outer.bind(endpoint)
    except (OSError, zmq.ZMQError) as error:
        raise SettingError(
            f"cannot wait for nodes at {address}, port {port}: {error.strerror}.\n"
            "  instead --data-parallel-address with an address of this host, or another --data-parallel-rpc-port"
        ) from None
    return endpoint


def endpoint_at(address: str, port: int) -> str:
    if not address or any(c in address for c in " /*"):
        raise SettingError(f"data_parallel_address must be a host's name or address, not {address!r:.80}")
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
