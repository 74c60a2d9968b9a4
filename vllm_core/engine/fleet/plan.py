"""Which engines a server has, from its settings, and what of the machine each of them gets. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.interfaces.device import Device

__all__ = ["FleetPlan", "alone", "devices_of_one", "environments", "plan_fleet", "plan_node", "refuse_several"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"
OURS = "data_parallel_"  # before the names of settings of the whole fleet


@attrs.frozen
class FleetPlan:
    """The numbers of the engines on this host, and of those that other hosts bring."""

    here: tuple[int, ...]
    elsewhere: tuple[int, ...] = ()


def plan_fleet(settings: EngineSettings) -> FleetPlan:
    """Of a server. Raises ``SettingError`` for settings that contradict each other, naming what would work."""
    size, local, rank = settings.data_parallel_size, settings.data_parallel_size_local, settings.data_parallel_rank
    if settings.data_parallel_start_rank is not None:
        raise SettingError(
            f"data_parallel_start_rank is {settings.data_parallel_start_rank}: a server that answers requests begins"
            " with engine 0.\n  instead leave it out, or start a further node with vllm-core serve --headless"
        )
    if rank is None and settings.data_parallel_external_lb:
        raise SettingError(
            "data_parallel_external_lb is on, and nothing says which engine this server runs.\n"
            f"  instead add --data-parallel-rank N, 0 to {size - 1}"
        )
    if rank is not None:
        if rank >= size:
            raise SettingError(
                f"data_parallel_rank is {rank}, and there are {size} engines (data_parallel_size).\n"
                f"  instead --data-parallel-rank 0 to {size - 1}, or --data-parallel-size {rank + 1}"
            )
        if local not in (None, 1):
            raise SettingError(
                f"data_parallel_size_local is {local}, and data_parallel_rank {rank} means one engine here, with a"
                " balancer before all servers.\n  instead leave one of them out"
            )
        return FleetPlan((rank,))
    here = size if local is None else local
    if here > size:
        raise SettingError(
            f"data_parallel_size_local is {here}, and there are {size} engines in all (data_parallel_size).\n"
            f"  instead --data-parallel-size {here}, or --data-parallel-size-local {size} at most"
        )
    if here < size and settings.data_parallel_address is None:
        raise SettingError(
            f"data_parallel_size_local is {here} of {size} engines, and nothing says where the other nodes find this"
            " one.\n  instead add --data-parallel-address, an address of this host, or leave"
            " --data-parallel-size-local out"
        )
    if here < size and settings.data_parallel_secret_file is None:
        raise SettingError(
            f"{size - here} engines are to come from further nodes, and nothing tells those from strangers.\n"
            "  instead add --data-parallel-secret-file FILE, the same secret on all nodes"
        )
    if here == size and settings.data_parallel_address is not None:
        raise SettingError(
            f"data_parallel_address is {settings.data_parallel_address}, and all {size} engines are on this host.\n"
            "  instead leave it out, or say with --data-parallel-size-local how many of them are"
        )
    return FleetPlan(tuple(range(here)), tuple(range(here, size)))


def plan_node(settings: EngineSettings) -> FleetPlan:
    """Of a further node (``--headless``), whose engines another server's requests go to."""
    size, local = settings.data_parallel_size, settings.data_parallel_size_local
    start = settings.data_parallel_start_rank
    missing = [
        f"--{name.replace('_', '-')}"
        for name in (
            "data_parallel_address",
            "data_parallel_start_rank",
            "data_parallel_size_local",
            "data_parallel_secret_file",
        )
        if getattr(settings, name) is None
    ]
    if missing:
        raise SettingError(
            "a node without a server (--headless) must know where its server is, which engines it runs, and a secret.\n"
            f"  missing {', '.join(missing)}"
        )
    assert local is not None
    assert start is not None
    if settings.data_parallel_rank is not None or settings.data_parallel_external_lb:
        raise SettingError(
            "a node without a server (--headless) has no requests that a balancer could send it.\n"
            "  instead leave --data-parallel-rank and --data-parallel-external-lb out"
        )
    if local < 1 or start + local > size:
        raise SettingError(
            f"a further node is to run {local} engines from number {start} on, and engines have numbers 0 to"
            f" {size - 1} (data_parallel_size).\n"
            "  instead give all nodes the same --data-parallel-size, and each its own --data-parallel-start-rank"
            " and --data-parallel-size-local"
        )
    return FleetPlan(tuple(range(start, start + local)))


def alone(settings: EngineSettings) -> EngineSettings:
    """What one of the engines is built from: it knows nothing of the others."""
    fields: Sequence[Any] = attrs.fields(EngineSettings)
    defaults: dict[str, Any] = {field.name: field.default for field in fields if field.name.startswith(OURS)}
    return attrs.evolve(settings, **defaults)


def refuse_several(settings: EngineSettings) -> None:
    """Where there is one engine, in the process of who calls it."""
    defaults, given = alone(settings), attrs.asdict(settings)
    for name, value in given.items():
        if name.startswith(OURS) and value != getattr(defaults, name):
            raise SettingError(
                f"{name} is {value}: LLM, and commands that answer by themselves, run one engine in their process.\n"
                f"  instead AsyncLLM(model, {name}={value!r}, ...) or vllm-core serve --{name.replace('_', '-')}"
                f" {value}; or leave it out"
            )


def environments(settings: EngineSettings, count: int, environ: Mapping[str, str]) -> list[dict[str, str]]:
    """What the processes of ``count`` engines of one host have in their environments beside the caller's.

    Each has devices of its own, and its share of the processor's cores unless the user has said how many threads.
    """
    if not _is_fleet(settings):
        return [{} for _ in range(count)]
    ranks = settings.tensor_parallel_size * settings.pipeline_parallel_size
    devices = [d.strip() for d in environ[VISIBLE].split(",") if d.strip()] if VISIBLE in environ else None
    found: list[dict[str, str]] = [{} for _ in range(count)]
    for number, its in enumerate(found):
        mine = range(number * ranks, (number + 1) * ranks)
        if settings.device != "cpu" and devices != []:
            its[VISIBLE] = ",".join(map(str, mine) if devices is None else devices[mine.start : mine.stop])
        if THREADS not in environ and count > 1:
            its[THREADS] = str(max(1, _cores() // (count * ranks)))
    return found


def devices_of_one(device: Device, settings: EngineSettings) -> Device:
    """The devices that each engine of this host will see, of all that this process sees."""
    local = settings.data_parallel_size_local
    count = settings.data_parallel_size if local is None else local
    if device.type == "cpu" or not _is_fleet(settings) or count == 0:
        return device
    ranks = settings.tensor_parallel_size * settings.pipeline_parallel_size
    if count * ranks > device.count:
        raise SettingError(
            f"{count} engines on this host need {count * ranks} devices, {ranks} each, and {device.count} are visible"
            f" ({device.name}).\n  instead --data-parallel-size {max(1, device.count // ranks)}, or --device cpu"
        )
    return attrs.evolve(device, count=ranks)


def _is_fleet(settings: EngineSettings) -> bool:
    """Whether engines share hosts, so that each must be told what is its own."""
    return settings.data_parallel_size > 1 and settings.data_parallel_rank is None


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
