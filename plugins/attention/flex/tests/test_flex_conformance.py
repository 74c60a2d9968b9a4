"""The backend "flex" passes the kit: unfused on a CPU, compiled on a GPU."""

import pytest
import torch

from vllm_core.testing import AttentionConformance


class Flex(AttentionConformance):
    """Every setting, but not in every batch: unfused it is slow, and compiled each kind of batch costs seconds."""

    __test__ = False
    backend = "flex"

    @classmethod
    def cases(cls):
        return [case for case in super().cases() if case.name == "plain" or case.batch == "all at once"]


@pytest.mark.usefixtures("unfused")
class TestFlexUnfused(Flex):
    __test__ = True
    device = "cpu"
    plugin_settings = {"compile": False}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestFlexOnCuda(Flex):
    __test__ = True
    device = "cuda"
