"""The building blocks that model plugins compose. Constructors take shapes; `bind` makes the rest."""

from vllm_core.layers.attention import Attention
from vllm_core.layers.base import Layer
from vllm_core.layers.causal_lm import CausalLM, read_config
from vllm_core.layers.decoder_attention import DecoderAttention
from vllm_core.layers.decoder_layer import DecoderLayer
from vllm_core.layers.embedding import LMHead, TiedHead, TokenEmbedding
from vllm_core.layers.gated_mlp import GatedMLP
from vllm_core.layers.linear import ColumnLinear, MergedLinear, RowLinear
from vllm_core.layers.mlp import MLP
from vllm_core.layers.norm import AddOnly, LayerNorm, NoNorm, OffsetRMSNorm, RMSNorm
from vllm_core.layers.parallel_layer import ParallelDecoderLayer
from vllm_core.layers.positions import PositionEmbedding
from vllm_core.layers.qkv import QKVLinear
from vllm_core.layers.rope_default import inverse_frequencies, rope_parameters, table
from vllm_core.layers.rotary import Rotary
from vllm_core.layers.scale import Scale
from vllm_core.layers.stack import LayerStack

__all__ = [
    "MLP",
    "AddOnly",
    "Attention",
    "CausalLM",
    "ColumnLinear",
    "DecoderAttention",
    "DecoderLayer",
    "GatedMLP",
    "LMHead",
    "Layer",
    "LayerNorm",
    "LayerStack",
    "MergedLinear",
    "NoNorm",
    "OffsetRMSNorm",
    "ParallelDecoderLayer",
    "PositionEmbedding",
    "QKVLinear",
    "RMSNorm",
    "Rotary",
    "RowLinear",
    "Scale",
    "TiedHead",
    "TokenEmbedding",
    "inverse_frequencies",
    "read_config",
    "rope_parameters",
    "table",
]
