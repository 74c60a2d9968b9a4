"""The backend "triton" passes the kit, on a GPU."""

import pytest
import torch

from vllm_core.testing import AttentionConformance


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestTriton(AttentionConformance):
    backend = "triton"
    device = "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestTritonInvariant(AttentionConformance):
    backend = "triton"
    device = "cuda"
    plugin_settings = {"batch_invariant": True}

    @classmethod
    def cases(cls):
        return [case for case in super().cases() if case.name == "plain"]
