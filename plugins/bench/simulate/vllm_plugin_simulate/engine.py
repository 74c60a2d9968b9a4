"""An engine as it is asked for: model, GPU, split and limits together, checked; ``replica()`` makes one."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vllm_core.commands import UsageError
from vllm_plugin_simulate.hardware import Gpu, Host
from vllm_plugin_simulate.memory import Limits, Memory, memory_of
from vllm_plugin_simulate.replica import Replica
from vllm_plugin_simulate.requests import Sketch
from vllm_plugin_simulate.shapes import Shapes
from vllm_plugin_simulate.split import Split
from vllm_plugin_simulate.step_time import StepTime

__all__ = ["Engine", "step_tokens"]

STEP_SECONDS = 0.2  # how long the engine lets a full step last


@attrs.frozen(kw_only=True)
class Engine:
    shapes: Shapes
    gpu: Gpu
    host: Host
    split: Split
    limits: Limits
    memory: Memory
    time: StepTime

    @classmethod
    def of(cls, shapes: Shapes, gpu: Gpu, host: Host, split: Split, limits: Limits) -> Engine:
        """Raises ``UsageError`` for what cannot be split so, or does not fit."""
        if why := shapes.refuse_split(split.tp, split.pp):
            raise UsageError(
                f"{shapes.name} cannot be split {split.tp} x {split.pp}: {why}.\n"
                "  where   --tensor-parallel-size, --pipeline-parallel-size"
            )
        memory = memory_of(shapes, gpu, limits, split.tp, split.pp)
        time = StepTime(shapes, gpu, host, split)
        return cls(shapes=shapes, gpu=gpu, host=host, split=split, limits=limits, memory=memory, time=time)

    def replica(self) -> Replica:
        return Replica(self.time, self.limits, self.memory.tokens)

    def check(self, sketches: Sequence[Sketch]) -> None:
        """Refuse requests that are longer than the engine's sequences, before anything runs."""
        most = self.limits.max_model_len
        for number, one in enumerate(sketches, 1):
            if one.input_tokens + one.output_tokens > most:
                raise UsageError(
                    f"request {number} has {one.input_tokens:,} input and {one.output_tokens:,} output tokens, more "
                    f"than the {most:,} of a sequence.\n  instead a larger --max-model-len"
                )


def step_tokens(parameters: int, gpu: Gpu) -> int:
    """The engine's own choice of the most tokens of a step: what the GPU computes in STEP_SECONDS."""
    tokens = STEP_SECONDS * gpu.step_flops / (2 * parameters)
    return min(8192, max(512, 512 * round(tokens / 512)))
