"""``vllm-core bench simulate``: what a model would do on GPUs that are not here. Importing this imports no torch."""

from __future__ import annotations

from vllm_core.plugin import Command, hookimpl

HOOK_API = 1


@hookimpl
def cli_commands() -> list[Command]:
    return [
        Command(
            "bench simulate",
            "vllm_plugin_simulate.command:Simulate",
            "predict throughput and latency on 1 to 10,000 GPUs, without any",
        )
    ]
