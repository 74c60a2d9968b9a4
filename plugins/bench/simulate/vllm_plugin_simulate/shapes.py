"""A model as the simulation sees it: how large its products and its cache are. Dense decoders with gated MLPs only."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from vllm_core.commands import UsageError

__all__ = ["Shapes", "known_models", "read_shapes"]

KNOWN = (
    "LlamaForCausalLM", "MistralForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
)  # fmt: skip
"""Architectures of which the fields below say everything that costs time."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")


@attrs.frozen(kw_only=True)
class Shapes:
    name: str
    hidden: int
    layers: int
    heads: int  # of queries
    kv_heads: int
    head_dim: int
    intermediate: int  # of the gated MLP
    vocab: int
    tied: bool  # the head is the embedding
    max_len: int  # tokens that the model was made for

    def layer_products(self, tp: int) -> tuple[tuple[int, int], ...]:
        """(out, in) of a layer's four products on one of ``tp`` ranks: QKV, output, gate and up, down."""
        q, kv = self.heads // tp * self.head_dim, self.kv_heads_of(tp) * self.head_dim
        inner = self.intermediate // tp
        return (q + 2 * kv, self.hidden), (self.hidden, q), (2 * inner, self.hidden), (self.hidden, inner)

    def layer_parameters(self, tp: int = 1) -> int:
        return sum(out * into for out, into in self.layer_products(tp)) + 2 * self.hidden

    def vocab_parameters(self, tp: int = 1) -> int:
        """Of the embedding, and as many of the head."""
        return -(-self.vocab // tp) * self.hidden

    def kv_heads_of(self, tp: int) -> int:
        """KV heads of a rank; more ranks than heads keep copies."""
        return max(1, self.kv_heads // tp)

    @property
    def parameters(self) -> int:
        return self.layers * self.layer_parameters() + (1 if self.tied else 2) * self.vocab_parameters() + self.hidden

    def stages(self, pp: int) -> tuple[int, ...]:
        """Layers of each pipeline stage, as the engine cuts: the slowest as fast as can be, then as even as can be.

        The head counts as the layers that it weighs.
        """
        if pp == 1:
            return (self.layers,)
        head = self.vocab_parameters() / sum(out * into for out, into in self.layer_products(1))

        def cut(last: int) -> tuple[int, ...]:
            each, more = divmod(self.layers - last, pp - 1)
            return (*(each + (i < more) for i in range(pp - 1)), last)

        def cost(stages: tuple[int, ...]) -> tuple[float, float]:
            costs = [*stages[:-1], stages[-1] + head]
            return max(costs), sum(cost * cost for cost in costs)

        return min(map(cut, range(1, self.layers - pp + 2)), key=cost)

    def refuse_split(self, tp: int, pp: int) -> str:
        """Why the model cannot be split so; "" if it can."""
        for what, count in (("attention heads", self.heads), ("columns of the MLP", self.intermediate)):
            if count % tp:
                return f"{count:,} {what} do not divide into {tp} ranks"
        if self.kv_heads % tp and tp % self.kv_heads:
            return f"{self.kv_heads} KV heads neither divide into {tp} ranks nor {tp} ranks into them"
        if pp > self.layers:
            return f"{self.layers} layers do not fill {pp} stages"
        return ""


def known_models() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files(__package__).joinpath("models.toml").read_text("utf-8"))


def read_shapes(model: str) -> Shapes:
    """``model``: a name of models.toml, a config.json, or the folder of one."""
    models = known_models()
    if model.lower() in models:
        return _shapes(model.lower(), models[model.lower()])
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"--model {model}: there is neither such a model nor such a file.\n"
            f"  known   {', '.join(models)}\n  instead a folder with the model's config.json; no weight is read"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no config.json: {error}\n  where   --model") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} holds no table of fields\n  where   --model")
    return _shapes(path.parent.resolve().name, config)


def _shapes(name: str, config: Mapping[str, Any]) -> Shapes:
    _refuse(name, config)
    hidden, heads = _count(name, config, "hidden_size"), _count(name, config, "num_attention_heads")
    return Shapes(
        name=name,
        hidden=hidden,
        layers=_count(name, config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_count(name, config, "num_key_value_heads", heads),
        head_dim=_count(name, config, "head_dim", hidden // heads),
        intermediate=_count(name, config, "intermediate_size"),
        vocab=_count(name, config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        max_len=_count(name, config, "max_position_embeddings"),
    )


def _refuse(name: str, config: Mapping[str, Any]) -> None:
    why = ""
    architectures = config.get("architectures") or ["(none)"]
    if experts := [field for field in EXPERTS if config.get(field)]:
        why = f"it has experts ({experts[0]}), which are not simulated yet"
    elif architectures[0] not in KNOWN:
        why = f"what {architectures[0]} costs is not known here; known are {', '.join(KNOWN)}"
    elif config.get("quantization_config"):
        why = "its weights are quantized, and products of quantized weights were not measured"
    elif config.get("sliding_window") and config.get("use_sliding_window", True):
        why = f"its attention has a window ({config['sliding_window']} tokens), which is not simulated yet"
    if why:
        raise UsageError(f"{name} cannot be simulated: {why}.\n  where   --model")


def _count(name: str, config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = config.get(field)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise UsageError(f"config.json of {name}: {field} must be a whole number above 0, not {value!r}")
    return value
