"""The backend "flex" passes the kit: unfused on a CPU, compiled on a GPU."""

import pytest
import torch

from vllm_core.testing import AttentionConformance


@pytest.mark.usefixtures("unfused")
class TestFlexUnfused(AttentionConformance):
    backend = "flex"
    device = "cpu"
    plugin_settings = {"compile": False}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestFlexOnCuda(AttentionConformance):
    backend = "flex"
    device = "cuda" if torch.cuda.is_available() else "auto"
