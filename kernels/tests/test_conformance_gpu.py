"""The CUDA kernels pass the kit, on a GPU; layers in one are compared with their composition in other files."""

from __future__ import annotations

import pytest
import torch
from vllm_kernels.offers import OPS

from vllm_core.ops import LAYER_OPS
from vllm_core.testing import KernelConformance

LAYERS = {
    "decoder_attention": "test_layers.py",
    "gated_mlp": "test_layers.py",
    "decoder_stack": "test_stack_layers.py",
}


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs a CUDA device of compute capability 8.0 or newer",
)
class TestKernels(KernelConformance):
    kernel = "kernels"
    device = "cuda"
    ops = tuple(sorted(set(OPS) - set(LAYER_OPS)))
    elsewhere = LAYERS
    cannot = {
        "linear.float32": "the product of few tokens is of halves",
        "linear.odd": "rows of a weight are read in vectors of 8 numbers",
        "linear.one": "rows of a weight are read in vectors of 8 numbers",
        "rotary.one pair": "a head of two elements leaves most threads of a warp idle",
    }
