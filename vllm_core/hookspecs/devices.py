"""Devices, and the processes that use them."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import ExecutorQuery, PlatformQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def platform(query: PlatformQuery, settings: Any) -> Offer | Refusal | None:
    """Offer a kind of device that is present on this machine.

    When     First of all, once per engine, in the parent process. Must not make a device
             context there (a CUDA context cannot be forked and costs memory): read facts from
             the driver's management library, or in a child process.
    query    ``name``: ``"auto"``, or the platform the user asked for.
    Returns  ``Offer`` whose name is the platform's (``"cpu"``) and whose target has the
             contract ``interfaces.platform.Platform``. ``Refusal`` when the device is present
             and cannot be used, with what is missing; ``None`` when it is absent, or ``name``
             is another platform's.
    Choice   A named platform must be offered. Else the highest rank (an accelerator offers
             TUNED, the CPU REFERENCE), then ``prefer.platform``, then an error naming both.
    Errors   An exception counts as ``Refusal``, unless the platform was named.
    Since    Hook API 1.
    """
    return None


@hookspec
def executor(query: ExecutorQuery, settings: Any) -> Offer | Refusal | None:
    """Offer a way to run the model's processes.

    When     Once per engine, in the parent process, after all other choices but before any
             weight is read.
    query    ``name`` the user asked for or ""; ``world_size`` ranks in all, ``nodes`` hosts,
             ``device`` facts about one device.
    Returns  ``Offer`` whose target has the contract ``interfaces.executor.Executor``.
             ``capabilities``: ``"processes"`` if no step runs in the process that asks, which
             then touches no device; ``"launched"`` if this process is one of several that
             somebody else has started, each with the local rank LOCAL_RANK. ``Refusal`` for
             sizes it cannot do; ``None`` for another's name.
    Choice   A named executor must be offered. Else the highest rank, ``prefer.executor``, then
             an error. The core offers one rank in its own process ("in-process", "uni") and a
             process a rank on this host ("mp") with rank PORTABLE.
    Errors   An exception counts as ``Refusal``, unless the executor was named.
    Since    Hook API 1.
    """
    return None
