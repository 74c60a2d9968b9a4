"""The backend "flashinfer" passes the kit on a GPU."""

import pytest
import torch
from vllm_plugin_flashinfer.library import missing

from vllm_core.testing import AttentionConformance

ONE_SIZE = "its kernel is compiled for keys and values of one size"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(bool(missing()), reason=missing())
class TestFlashInfer(AttentionConformance):
    """In bfloat16 alone, and without combinations, for each kind of layers is a module that nvcc takes a minute for."""

    backend = "flashinfer"
    device = "cuda"
    tolerance = {"bfloat16": 2e-2}
    cannot = {
        "float32": "its kernels multiply 16-bit numbers",
        "v_dim": ONE_SIZE,
        "head_size_80": "it is compiled for heads of 64, 128 and 256 elements",
    }

    @classmethod
    def cases(cls):
        """Heads of 64 elements: plain, with a window, with a cap; heads of 128, plain."""
        modules = {(64, False, False), (64, True, False), (64, False, True), (128, False, False)}

        def module(settings):
            return settings.get("k_dim", 64), settings.get("window") is not None, settings.get("soft_cap") is not None

        return [case for case in super().cases() if module(case.settings) in modules]
