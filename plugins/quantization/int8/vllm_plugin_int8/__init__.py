"""8-bit integer weights for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_core.interfaces.queries import QuantizationQuery
from vllm_core.plugin import Offer, Provides, Refusal, hookimpl
from vllm_plugin_int8.checkpoint import unread

if TYPE_CHECKING:
    from vllm_plugin_int8.options import Int8Settings

HOOK_API = 1
W8A8 = "int8"
WEIGHTS = "int8_per_channel_weight_only"
STORED = "compressed-tensors"
TURING = (7, 5)  # the first with integer tensor cores


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("quantization_method", W8A8, "8-bit weights and inputs (W8A8), made of a dense checkpoint"),
        Provides("quantization_method", WEIGHTS, "8-bit weights alone, made of a dense checkpoint"),
        Provides("quantization_method", STORED, "checkpoints with 8-bit integer weights"),
    ]


@hookimpl
def settings() -> str:
    return "vllm_plugin_int8.options:Int8Settings"


@hookimpl
def quantization_method(query: QuantizationQuery, settings: Int8Settings | None) -> Offer | Refusal | None:
    if query.method not in (W8A8, WEIGHTS, STORED):
        return None
    if refusal := _wrong_checkpoint(query) or _wrong_device(query):
        return refusal
    target = "vllm_plugin_int8.quantization:" + ("StoredInt8" if query.method == STORED else "OnlineInt8")
    options = {"skip": list(settings.ignore) if settings else [], "inputs": query.method == W8A8}
    return Offer(name=query.method, target=target, options={} if query.method == STORED else options)


def _wrong_checkpoint(query: QuantizationQuery) -> Refusal | None:
    by = query.config.get("quant_method") or "a method that its config.json does not name"
    if query.method == STORED and (not query.config or by == STORED):
        why = unread(query.config)
        remedy = "" if query.config else f"--quantization {W8A8} quantizes it while it is loaded"
        return Refusal(why, name=STORED, remedy=remedy) if why else None
    if not query.config:
        return None
    reads = "checkpoints of its own format" if query.method == STORED else "dense checkpoints"
    return Refusal(
        f'it takes {reads}, and this one is quantized by "{by}" already',
        name=query.method,
        remedy="leave --quantization out to serve it as it is, or take its dense original",
    )


def _wrong_device(query: QuantizationQuery) -> Refusal | None:
    device = query.device
    if device.type not in ("cpu", "cuda"):
        return Refusal(f"it has products for CPUs and CUDA, and this is {device.type}", name=query.method)
    if device.type == "cuda" and device.capability is not None and device.capability < TURING:
        shown = ".".join(map(str, device.capability))
        return Refusal(f"{device.name or 'this GPU'} ({shown}) has no 8-bit tensor cores; 7.5 has", name=query.method)
    if device.type == "cpu" and query.method != WEIGHTS:
        from vllm_plugin_int8.products import inexact_on_cpu

        if why := inexact_on_cpu():
            return Refusal(why, name=query.method, remedy=f"--quantization {WEIGHTS} needs no integer products")
    return None
