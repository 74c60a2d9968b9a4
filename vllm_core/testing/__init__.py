"""What plugin authors test with: a class for each kind of plugin. Importing this package imports no torch."""

from importlib import import_module
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
    from vllm_core.testing.metrics_sink import MetricsSinkConformance
    from vllm_core.testing.model import ModelConformance
    from vllm_core.testing.platform import PlatformConformance
    from vllm_core.testing.proposer import ProposerConformance
    from vllm_core.testing.quantization import QuantizationConformance, QuantizationScheme
    from vllm_core.testing.reasoning_parser import ReasoningParserConformance
    from vllm_core.testing.rope import RopeConformance
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
    "Measured": "kit",
    "MetricsSinkConformance": "metrics_sink",
    "ModelConformance": "model",
    "PlatformConformance": "platform",
    "ProposerConformance": "proposer",
    "QuantizationConformance": "quantization",
    "QuantizationScheme": "quantization",
    "ReasoningParserConformance": "reasoning_parser",
    "RopeConformance": "rope",
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
    "Measured",
    "MetricsSinkConformance",
    "ModelConformance",
    "PlatformConformance",
    "ProposerConformance",
    "QuantizationConformance",
    "QuantizationScheme",
    "ReasoningParserConformance",
    "RopeConformance",
    "SchedulerPolicyConformance",
    "TokenizerConformance",
    "ToolParserConformance",
    "WeightFormatConformance",
]


def __getattr__(name: str):
    if name in _KITS:
        return getattr(import_module(f"vllm_core.testing.{_KITS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
