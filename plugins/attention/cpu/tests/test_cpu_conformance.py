"""The backend "cpu" passes the kit, with nothing that it cannot do."""

from vllm_core.testing import AttentionConformance


class TestCpuAttention(AttentionConformance):
    backend = "cpu"
    device = "cpu"
