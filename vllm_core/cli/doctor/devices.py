"""The platforms: which are here, why others are not, and which an engine would take. Makes no device context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vllm_core.cli.doctor.finding import Finding
from vllm_core.cli.doctor.machine import size
from vllm_core.interfaces.queries import PlatformQuery
from vllm_core.plugins.lines import one_line

if TYPE_CHECKING:
    from vllm_core.config.engine import EngineSettings
    from vllm_core.plugins.catalog import Catalog

__all__ = ["devices"]


def devices(catalog: Catalog, settings: EngineSettings, torch: Mapping[str, Any]) -> Iterator[Finding]:
    """``torch``: the facts of ``TorchProbe``."""
    from vllm_core.plugins import Selector

    wanted = settings.device
    for name in catalog.names("platform"):
        try:
            platform = Selector(catalog).choose("platform", PlatformQuery(name=name), name).load()()
            device = platform.facts()
        except Exception as error:
            yield Finding("devices", name, "ok", f"not here: {one_line(str(error))}", facts={"present": False})
            continue
        facts = {
            "present": True, "name": device.name, "count": device.count, "memory_bytes": device.memory,
            "capability": device.capability, "dtypes": list(platform.dtypes()), "features": sorted(device.features),
        }  # fmt: skip
        several = f"{device.count} x " if device.count > 1 else ""
        says = f"{several}{device.name or device.type}, {size(device.memory)}; computes {', '.join(platform.dtypes())}"
        if device.type == "cuda" and not torch.get("cuda_usable"):
            built = "cannot use it" if torch.get("cuda") else "is built without CUDA"
            yield Finding(
                "devices", name, "warn" if wanted == "auto" else "fail", f"{says}; but this torch {built}",
                remedy="a torch build for this driver's CUDA, or --device cpu", facts=facts,
            )  # fmt: skip
        else:
            yield Finding("devices", name, "ok", says, facts=facts)
    yield _chosen(catalog, settings)


def _chosen(catalog: Catalog, settings: EngineSettings) -> Finding:
    from vllm_core.plugins import Selector

    wanted = settings.device
    try:
        decision = Selector(catalog, prefer=settings.prefer).choose(
            "platform", PlatformQuery(name=wanted), None if wanted == "auto" else wanted, asked_by="--device"
        )
        decision.load()().facts()
    except Exception as error:
        return Finding("devices", "device", "fail", str(error), remedy="--device names another one")
    says = f"{decision.offer.name}: {decision.why}"
    return Finding("devices", "device", "ok", says, facts={"chosen": decision.offer.name, "asked": wanted})
