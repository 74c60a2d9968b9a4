"""The backend "native" passes the attention kit: everything in float32, and in bfloat16 where the processor has it."""

import pytest
from vllm_plugin_cpu_native.limits import machine_limits

from vllm_core.testing import AttentionConformance

HALF = machine_limits("bfloat16")


@pytest.mark.skipif(bool(machine_limits("float32")), reason=machine_limits("float32"))
class TestNativeAttention(AttentionConformance):
    backend = "native"
    device = "cpu"
    cannot = {
        "float16": "the kernels are made for float32 and bfloat16",
        **({"bfloat16": HALF} if HALF else {}),
    }
