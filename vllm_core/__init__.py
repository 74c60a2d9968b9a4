"""vllm-core: a small LLM serving engine in which every feature is a plugin.

Importing this package imports no torch; ``LLM`` and ``SamplingParams`` load on first use.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "__version__"]

if TYPE_CHECKING:
    from vllm_core.engine.llm import LLM
    from vllm_core.engine.sampling_params import SamplingParams

_LAZY = {"LLM": "vllm_core.engine.llm", "SamplingParams": "vllm_core.engine.sampling_params"}


def __getattr__(name: str):
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vllm_core' has no attribute {name!r}")
