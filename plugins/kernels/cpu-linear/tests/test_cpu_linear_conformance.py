"""The products "onednn" pass the kit of kernels."""

from __future__ import annotations

import pytest
from vllm_plugin_cpu_linear import _refusal

from vllm_core.testing import KernelConformance

DTYPES = {"float32": 2e-6, "bfloat16": 8e-3, "float16": 1e-3}


@pytest.mark.skipif(bool(_refusal("float32")), reason=_refusal("float32") or "runs")
class TestPackedProducts(KernelConformance):
    kernel = "onednn"
    device = "cpu"
    ops = ("linear",)
    tolerance = {name: bound for name, bound in DTYPES.items() if name == "float16" or not _refusal(name)}
    cannot = {"float16": "oneDNN's packed products are of float32 and bfloat16"}
