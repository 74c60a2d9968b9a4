"""Recording a step as a CUDA graph."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress

import torch

from vllm_core.runner.static_step import StaticStep


class CudaRecorder:
    """Runs a step once, so that libraries load what they need, then records it. All graphs share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: StaticStep) -> Callable[[], None]:
        stream, current = self._stream, torch.cuda.current_stream()
        stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        collecting = gc.isenabled()
        gc.disable()  # a collection could free what the driver must not free while recording
        try:
            with torch.cuda.stream(stream):
                step.run()
                # Other threads may use the device meanwhile. torch.cuda.graph would also wait for the device
                # and empty the cache of memory, far longer than a step.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    step.run()
                except BaseException:
                    with suppress(RuntimeError):  # what ended the recording is the error to be told
                        graph.capture_end()
                    raise
                graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        current.wait_stream(stream)
        return graph.replay
