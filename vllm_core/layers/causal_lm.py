"""A causal language model: embedding, layers, norm, head."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer
from vllm_core.layers.embedding import LMHead, TiedHead, TokenEmbedding
from vllm_core.layers.norm import LayerNorm, RMSNorm
from vllm_core.layers.rope_default import rope_parameters
from vllm_core.layers.stack import LayerStack
from vllm_core.weights.rules import Rule


class CausalLM(Layer):
    """The surface of `interfaces.model.Model` for models of this shape; subclasses give parts and weight rules.

    logit_cap     logits become logit_cap * tanh(logits / logit_cap); None: as they are
    embed_factor, logit_factor   embeddings and logits (before the cap) are multiplied with them

    Parameters lie under ``embedding``, ``layers.{i}``, ``norm`` and ``head``.
    """

    Config: ClassVar[type]  # an attrs class: the fields of config.json that the model reads
    weights: list[Rule]

    def __init__(
        self,
        embed: TokenEmbedding,
        layers: LayerStack,
        norm: RMSNorm | LayerNorm,
        head: LMHead | TiedHead,
        logit_cap: float | None = None,
        *,
        embed_factor: float = 1.0,
        logit_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.logit_cap, self.embed_factor, self.logit_factor = logit_cap, embed_factor, logit_factor
        self.embedding, self.layers, self.norm, self.head = embed, layers, norm, head
        self.vocab_size = embed.vocab_size
        if isinstance(head, TiedHead):
            head.tie(embed)

    def bind(self, plan: Plan, path: str = "") -> None:
        """On pipeline stages before the last there is no norm and no head."""
        stage = plan.group("pp")
        self.ends = stage.rank == stage.size - 1
        self.layers.behind = self.vocab_size * self.embedding.hidden
        if not self.ends:
            self.elsewhere = ["norm", "head"]
            for name in self.elsewhere:
                self._modules.pop(name, None)
        super().bind(plan, path)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CausalLM:
        """From the content of config.json; ``ValueError`` names a field that is missing or wrong.

        A field ``rope_parameters`` is filled from whichever fields the config has (`layers.rope_parameters`).
        """
        make: Any = cls  # a subclass's constructor takes its Config
        if any(a.name == "rope_parameters" for a in attrs.fields(cls.Config)):
            config = {**config, "rope_parameters": rope_parameters(config)}
        return make(read_config(cls.Config, config, cls.__name__))

    def embed(self, ids: Tensor, batch: Batch) -> Tensor:
        """ids int64 [T] -> [T, hidden]."""
        x = self.embedding(ids)
        return x if self.embed_factor == 1.0 else x * self.embed_factor

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """[T, hidden] -> [T, hidden], final norm included; before the last pipeline stage, what the next one takes."""
        x, residual = self.layers(x, batch)
        if self.ends:
            return self.norm.add(x, residual)[0]
        return x if residual is None else x + residual

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden] -> [N, vocab_size]."""
        logits = self.head(hidden)
        logits = logits if self.logit_factor == 1.0 else logits * self.logit_factor
        return logits if self.logit_cap is None else torch.tanh(logits / self.logit_cap) * self.logit_cap


_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}


def read_config(fields: type, config: dict[str, Any], who: str) -> Any:
    """An instance of the attrs class ``fields`` from a config's keys of the same names.

    A key that is missing takes the field's default; without one it is an error. So does a key
    that is null, unless the field's type has None ("sliding_window": null is no window).
    """
    given = {
        a.name: config[a.name]
        for a in attrs.fields(fields)
        if a.name in config and (config[a.name] is not None or _takes_none(a))
    }
    lacking = [a.name for a in attrs.fields(fields) if a.name not in given and a.default is attrs.NOTHING]
    if lacking:
        raise ValueError(f"config.json lacks {', '.join(map(repr, lacking))}, which {who} needs")
    for a in attrs.fields(fields):
        kinds = _KINDS.get(_type_name(a).removesuffix(" | None"))
        if given.get(a.name) is not None and kinds is not None and type(given[a.name]) not in kinds:
            raise ValueError(
                f"{a.name!r} in config.json must be {kinds[0].__name__}, not {given[a.name]!r:.80} ({who})"
            )
    return fields(**given)


def _type_name(field: attrs.Attribute[Any]) -> str:
    """As it is written, whether annotations are kept as text or not."""
    return field.type.__name__ if isinstance(field.type, type) else str(field.type)


def _takes_none(field: attrs.Attribute[Any]) -> bool:
    return _type_name(field).endswith("| None")
