"""What of compressed-tensors' quantization_config is read here, and by name what is not. No torch.

The format: github.com/vllm-project/compressed-tensors, quantization/quant_config.py and quant_args.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_plugin_int8.names import broken, fits

PACKED = "pack-quantized"  # four numbers less 128 an int32 in "weight_packed", the first in the lowest bits
FORMATS = ("int-quantized", "naive-quantized", PACKED)  # the first two: int8 in "weight"
ELSEWHERE = ("kv_cache_scheme", "sparsity_config", "transform_config")
WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
INPUTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
USUAL = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False}
"""What a field means that a config leaves out; "strategy" must be there."""
CLASS = "Linear"  # a target that means every linear layer


@attrs.frozen
class Group:
    """Matrices that are stored in one way."""

    targets: tuple[str, ...]
    inputs: bool  # whether activations are rounded, too
    packed: bool

    def has(self, name: str) -> bool:
        return any(target == CLASS or fits(name, target) for target in self.targets)


def groups(config: Mapping[str, Any]) -> list[Group]:
    """Of a config that `unread` accepts."""
    return [
        Group(
            targets=tuple(group["targets"]),
            inputs=group.get("input_activations") is not None,
            packed=(group.get("format") or config.get("format")) == PACKED,
        )
        for group in config["config_groups"].values()
    ]


def unread(config: Mapping[str, Any]) -> str:
    """Why a checkpoint with this quantization_config cannot be read; "" if it can."""
    if not config:
        return "the checkpoint has no quantization_config: its weights are dense"
    stored, status = config.get("format"), config.get("quantization_status", "compressed")
    if status != "compressed":
        return f'quantization_status is "{status}", which leaves weights unpacked; only "compressed" is read'
    for name in ELSEWHERE:
        if value := config.get(name):
            if name == "sparsity_config" and isinstance(value, Mapping) and value.get("format") == "dense":
                continue
            return f"{name} is {value!r:.100}, which is not read"
    found = config.get("config_groups")
    if not isinstance(found, Mapping) or not found:
        return "config_groups is empty: nothing says how weights are stored"
    for name, group in found.items():
        if not isinstance(group, Mapping):
            return f"config_groups.{name} is {group!r:.100}, not a table"
        if why := _unread_group(group, stored):
            return f"config_groups.{name}: {why}"
    ignored = config.get("ignore") or ()
    if not isinstance(ignored, Sequence) or isinstance(ignored, str):
        return f"ignore is {ignored!r:.100}, not a list"
    return broken([*ignored, *(target for group in groups(config) for target in group.targets)])


def _unread_group(group: Mapping[str, Any], stored: Any) -> str:
    shown = group.get("format") or stored
    if shown not in FORMATS:
        return f'the format "{shown}" is not read, only {", ".join(FORMATS)}'
    targets = group.get("targets")
    if not isinstance(targets, Sequence) or isinstance(targets, str) or not targets:
        return f"targets is {targets!r:.100}, not a list of names"
    if group.get("output_activations") is not None:
        return "output_activations are quantized, which is not done here"
    for part, wanted in (("weights", WEIGHTS), ("input_activations", INPUTS)):
        value = group.get(part)
        if value is None and part == "input_activations":
            continue
        if not isinstance(value, Mapping):
            return f"{part} is {value!r:.100}, not a table"
        for field, want in wanted.items():
            if (found := value.get(field, USUAL.get(field))) != want:
                return f"{part}.{field} is {found!r}, and only {want!r} is read"
    return ""
