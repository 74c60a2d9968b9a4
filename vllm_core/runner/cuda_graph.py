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
        self._shared = False  # a graph holds the pool

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
        except BaseException:
            if not self._shared:  # a pool that no graph holds ends with this one
                self._pool = torch.cuda.graph_pool_handle()
            raise
        finally:
            if collecting:
                gc.enable()
            # After a failure too: what the step has launched so far reads tensors that are free from now on.
            current.wait_stream(stream)
        self._shared = True
        return graph.replay
