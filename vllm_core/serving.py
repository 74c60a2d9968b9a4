"""What a server imports of the engine: requests in, outputs out, and what can go wrong."""

from __future__ import annotations

from vllm_core.engine.async_llm import AsyncLLM, Conversation
from vllm_core.engine.errors import EngineDeadError, EngineRestartingError, EngineStuckError, RequestError, nearest
from vllm_core.engine.far.node import run_node
from vllm_core.engine.figures import Figures
from vllm_core.engine.folders import OwnedFolder
from vllm_core.engine.log_queue import QueuedHandler
from vllm_core.engine.logprobs import Logprob
from vllm_core.engine.outputs import (
    CompletionOutput,
    ParsedDelta,
    RequestMetrics,
    RequestOutput,
    ToolCall,
    ToolDelta,
)
from vllm_core.engine.prompts import Prompt
from vllm_core.engine.pulse import Pulse
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.structured_outputs import StructuredOutputsParams
from vllm_core.engine.watchdog import Watchdog
from vllm_core.plugins.explain import explain

__all__ = [
    "AsyncLLM", "CompletionOutput", "Conversation", "EngineDeadError", "EngineRestartingError",
    "EngineStuckError", "Figures", "Logprob", "OwnedFolder", "ParsedDelta", "Prompt", "Pulse", "QueuedHandler",
    "RequestError", "RequestMetrics", "RequestOutput", "SamplingParams", "StructuredOutputsParams", "ToolCall",
    "ToolDelta", "Watchdog", "explain", "nearest", "run_node",
]  # fmt: skip
