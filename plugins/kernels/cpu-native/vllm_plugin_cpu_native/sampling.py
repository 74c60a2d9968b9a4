"""The sampler ``native``."""

from __future__ import annotations

from ctypes import byref

import torch
from torch import Tensor

from vllm_core.interfaces.queries import SamplerQuery
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_plugin_cpu_native import library


class NativeSampler:
    """`interfaces.sampler.Sampler`: a row's weights stay in the second cache while thresholds are found."""

    def __init__(self, query: SamplerQuery) -> None:
        self._sample = library.with_threads().native_sample

    def __call__(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        tokens = torch.empty(len(logits), dtype=torch.int64)
        self._run(logits, params, tokens, None)
        return tokens

    def probs(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        probs = torch.empty(logits.shape, dtype=torch.float32)
        self._run(logits, params, None, probs)
        return probs

    def _run(self, logits: Tensor, params: SamplingTensors, tokens: Tensor | None, probs: Tensor | None) -> None:
        if logits.dtype not in (torch.float32, torch.bfloat16):
            logits = logits.float()
        logits = logits.contiguous()
        given = [
            getattr(params, name).to(dtype).contiguous()
            for name, dtype in (
                *(("temperature", torch.float32), ("top_k", torch.int64), ("top_p", torch.float32)),
                *(("min_p", torch.float32), ("noise", torch.float64)),
            )
        ]
        record = library.Sampling(*(tensor.data_ptr() for tensor in given))
        self._sample(
            *(logits.dtype == torch.float32, logits.data_ptr(), *logits.shape, byref(record)),
            *(None if tensor is None else tensor.data_ptr() for tensor in (tokens, probs)),
        )
