"""What vllm-core asks of the device. Contract: interfaces/platform.py."""

import torch

from vllm_core.interfaces.device import Device

GiB = 1 << 30


class StubPlatform:
    name = "stub"

    def facts(self):
        return Device(type="stub", name="Stub 9000", memory=2 * GiB)

    def dtypes(self):
        return ("float32", "bfloat16")

    def token_budget(self, parameters):
        return 256

    def max_rows(self):
        return 8

    def cache_memory(self, taken):
        return GiB // 16

    def world_limit(self):
        return 1

    def torch_device(self, rank):
        import vllm_plugin_stub.device  # noqa: F401  torch knows the device from here on

        return torch.device("stub", rank)

    def free_memory(self, rank):
        return GiB

    def stream(self):
        return None

    def event(self):
        return None

    def pinned(self):
        return False

    def synchronize(self):
        """Work is done when a call returns."""
