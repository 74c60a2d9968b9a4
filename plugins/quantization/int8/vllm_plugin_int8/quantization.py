"""`interfaces.quantization.Quantization`: which matrices of a checkpoint have 8-bit weights."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.quantization import LinearMethod, LinearShape
from vllm_plugin_int8.checkpoint import groups
from vllm_plugin_int8.methods import Int8Weights, Int8WeightsAndInputs, Source
from vllm_plugin_int8.names import HEADS, broken, first_fit


def method(source: Source, *, inputs: bool) -> LinearMethod:
    return Int8WeightsAndInputs(source) if inputs else Int8Weights(source)


class OnlineInt8:
    """Quantizes the matrices of a dense checkpoint while they are loaded, but for heads and what the user skips."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.inputs: bool = config["inputs"]
        self.skip: list[str] = config["skip"]
        self.missed = set(self.skip) - set(HEADS)  # a head that shares the embedding is no matrix of its own
        if wrong := broken(self.skip):
            raise ValueError(f"[plugin.int8] ignore: {wrong}")

    def linear(self, checkpoint_name: str, shape: LinearShape) -> LinearMethod | None:
        skipped = {pattern for pattern in self.skip if first_fit(checkpoint_name, [pattern])}
        self.missed -= skipped
        if skipped or first_fit(checkpoint_name, HEADS):
            return None
        return method(Source.DENSE, inputs=self.inputs)

    def bound(self) -> None:
        """All matrices have been asked for."""
        if self.missed:
            raise ValueError(
                f"[plugin.int8] ignore: {', '.join(map(repr, sorted(self.missed)))} fits no matrix of the checkpoint;"
                " names are those of its modules, such as model.layers.0.mlp.down_proj or *.down_proj"
            )


class StoredInt8:
    """A checkpoint in one of compressed-tensors' formats."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.groups = groups(config)
        self.ignore: list[str] = list(config.get("ignore") or ())

    def linear(self, checkpoint_name: str, shape: LinearShape) -> LinearMethod | None:
        if first_fit(checkpoint_name, self.ignore):
            return None
        for group in self.groups:
            if group.has(checkpoint_name):
                return method(Source.PACKED if group.packed else Source.INT8, inputs=group.inputs)
        return None
