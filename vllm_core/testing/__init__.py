"""What plugin authors test with: a class for each kind of plugin. Importing this package imports no torch."""

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_core.testing.attention import AttentionConformance
    from vllm_core.testing.bundled_model import BundledModelConformance
    from vllm_core.testing.chat_renderer import ChatRendererConformance
    from vllm_core.testing.collective import CollectiveConformance
    from vllm_core.testing.command import CommandConformance
    from vllm_core.testing.endpoint import EndpointConformance
    from vllm_core.testing.executor import ExecutorConformance
    from vllm_core.testing.grammar import GrammarConformance
    from vllm_core.testing.kernel import KernelConformance
    from vllm_core.testing.kit import Conformance, Measured
    from vllm_core.testing.logits_processor import LogitsProcessorConformance
    from vllm_core.testing.metrics_sink import MetricsSinkConformance
    from vllm_core.testing.model import ModelConformance
    from vllm_core.testing.platform import PlatformConformance
    from vllm_core.testing.proposer import ProposerConformance
    from vllm_core.testing.quantization import QuantizationConformance, QuantizationScheme
    from vllm_core.testing.reasoning_parser import ReasoningParserConformance
    from vllm_core.testing.rope import RopeConformance
    from vllm_core.testing.sampler import SamplerConformance
    from vllm_core.testing.scheduler_policy import SchedulerPolicyConformance
    from vllm_core.testing.tokenizer import TokenizerConformance
    from vllm_core.testing.tool_parser import ToolParserConformance
    from vllm_core.testing.weight_format import WeightFormatConformance

_KITS = {
    "AttentionConformance": "attention",
    "BundledModelConformance": "bundled_model",
    "ChatRendererConformance": "chat_renderer",
    "CollectiveConformance": "collective",
    "CommandConformance": "command",
    "Conformance": "kit",
    "EndpointConformance": "endpoint",
    "ExecutorConformance": "executor",
    "GrammarConformance": "grammar",
    "KernelConformance": "kernel",
    "LogitsProcessorConformance": "logits_processor",
    "Measured": "kit",
    "MetricsSinkConformance": "metrics_sink",
    "ModelConformance": "model",
    "PlatformConformance": "platform",
    "ProposerConformance": "proposer",
    "QuantizationConformance": "quantization",
    "QuantizationScheme": "quantization",
    "ReasoningParserConformance": "reasoning_parser",
    "RopeConformance": "rope",
    "SamplerConformance": "sampler",
    "SchedulerPolicyConformance": "scheduler_policy",
    "TokenizerConformance": "tokenizer",
    "ToolParserConformance": "tool_parser",
    "WeightFormatConformance": "weight_format",
}

__all__ = [
    "AttentionConformance",
    "BundledModelConformance",
    "ChatRendererConformance",
    "CollectiveConformance",
    "CommandConformance",
    "Conformance",
    "EndpointConformance",
    "ExecutorConformance",
    "GrammarConformance",
    "KernelConformance",
    "LogitsProcessorConformance",
    "Measured",
    "MetricsSinkConformance",
    "ModelConformance",
    "PlatformConformance",
    "ProposerConformance",
    "QuantizationConformance",
    "QuantizationScheme",
    "ReasoningParserConformance",
    "RopeConformance",
    "SamplerConformance",
    "SchedulerPolicyConformance",
    "TokenizerConformance",
    "ToolParserConformance",
    "WeightFormatConformance",
]


if "pytest" in sys.modules:  # a bare assert of a kit then shows both of its sides
    sys.modules["pytest"].register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))


def __getattr__(name: str):
    if name in _KITS:
        return getattr(import_module(f"vllm_core.testing.{_KITS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
