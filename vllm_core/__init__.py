"""vllm-core: a small LLM serving engine in which every feature is a plugin.

Importing this package imports no torch; ``LLM``, ``AsyncLLM`` and ``SamplingParams`` load on first use.
"""

import os
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["LLM", "AsyncLLM", "SamplingParams", "StructuredOutputsParams", "__version__"]

# Read by OpenMP when torch loads. Its default, threads that spin while they wait, starves them as soon as another
# process uses the cores: reading a model took 12.5 s instead of 0.9 s beside two busy processes on 2 cores, against
# 2 % of decoding speed on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from vllm_core.engine.async_llm import AsyncLLM
    from vllm_core.engine.llm import LLM
    from vllm_core.engine.sampling_params import SamplingParams
    from vllm_core.engine.structured_outputs import StructuredOutputsParams

_LAZY = {
    "AsyncLLM": "vllm_core.engine.async_llm",
    "LLM": "vllm_core.engine.llm",
    "SamplingParams": "vllm_core.engine.sampling_params",
    "StructuredOutputsParams": "vllm_core.engine.structured_outputs",
}


def __getattr__(name: str):
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vllm_core' has no attribute {name!r}")
