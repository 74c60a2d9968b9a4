"""CUDA kernels for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from importlib.util import find_spec

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery, SamplerQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl
from vllm_kernels.offers import INVARIANT, OPS, SAMPLER

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("op_kernel", "kernels", "operations and halves of decoder layers, in CUDA C++"),
        Provides("sampler", "kernels", "greedy, temperature, min-p, top-k and top-p without sorting, in CUDA C++"),
    ]


@hookimpl
def op_kernel(query: OpQuery) -> Offer | Refusal | None:
    entry = OPS.get(query.op)
    if entry is None or query.device.type != "cuda":
        return None
    if reason := machine_limits(query.device) or entry.limits(query):
        return Refusal(reason, name="kernels", remedy="other kernels or the core's own operations serve it")
    return Offer(name="kernels", target=entry.target, rank=Rank.TUNED, capabilities=entry.capabilities)


@hookimpl
def sampler(query: SamplerQuery) -> Offer | Refusal | None:
    if SAMPLER is None or query.device.type != "cuda":
        return None
    if reason := machine_limits(query.device):
        return Refusal(reason, name="kernels", remedy="the core's own sampler draws")
    return Offer(name="kernels", target=SAMPLER, rank=Rank.TUNED, capabilities=INVARIANT)


def machine_limits(device: Device) -> str:
    """Why nothing here runs on this machine; "" if it does."""
    if device.capability is None or device.capability < (8, 0):
        return f"compute capability {device.capability} is below (8, 0)"
    if find_spec("cupy_backends") is None:
        return "CuPy is not installed, whose NVRTC compiles the kernels: pip install 'vllm-kernels[cuda13]' (or cuda12)"
    return ""
