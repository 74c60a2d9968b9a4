"""The collective "shared-memory" passes the kit."""

from __future__ import annotations

import pytest
from vllm_plugin_cpu_native import library

from vllm_core.testing import CollectiveConformance


@pytest.mark.skipif(not library.PATH.exists(), reason="built without its kernels")
class TestSharedMemorySum(CollectiveConformance):
    collective = "shared-memory"
    device = "cpu"
    cannot = {
        "float16": "sums of float16 are not written",
        "strided": "it adds numbers that lie side by side",
    }
