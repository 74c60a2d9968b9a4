"""The kernels "native" pass the kit; layers in one are compared with their composition in test_layers.py."""

from __future__ import annotations

import pytest
from vllm_plugin_cpu_native.limits import machine_limits

from vllm_core.testing import KernelConformance

DTYPES = {"float32": 2e-6, "bfloat16": 8e-3, "float16": 1e-3}


@pytest.mark.skipif(bool(machine_limits("float32")), reason=machine_limits("float32") or "runs")
class TestNativeKernels(KernelConformance):
    kernel = "native"
    device = "cpu"
    ops = ("linear", "scaled_linear", "rms_norm", "add_rms_norm")
    elsewhere = {"decoder_attention": "test_layers.py", "gated_mlp": "test_layers.py"}
    tolerance = {name: bound for name, bound in DTYPES.items() if name == "float16" or not machine_limits(name)}
    cannot = {"float16": "products of float16 are not written"}
