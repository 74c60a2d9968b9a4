"""The oracle of a model: transformers' own, tiny, with random weights under which mistakes show."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

GAINS = (1.2, 1.5, 1.9, 2.4, 3.0, 4.0)
"""Tried in this order: a matrix [out, in] gets a standard deviation of gain / sqrt(in)."""
LEAST_STD = 1.0  # of the logits
MOST_ENTROPY = 0.7  # of attention, over that of uniform attention
SAMPLE = 64  # tokens of the prompt that is measured


class Reference:
    """A model of transformers in float32.

    rounded   weights hold values that this dtype can hold, so that both sides start from the same
    gains     tensor name with wildcards -> factor on its random values, beside the common gain
    std       of the logits, measured
    entropy   of each layer's attention over that of uniform attention, mean of heads and queries; measured
    """

    def __init__(
        self,
        model_class: type,
        config: Mapping[str, Any],
        *,
        rounded: torch.dtype = torch.float32,
        gains: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.model = build(model_class, config)
        self.vocab_size: int = self.model.config.get_text_config().vocab_size
        self._tune(rounded, gains or {}, seed)

    def logits(self, ids: list[int]) -> Tensor:
        """float32 [T, vocab_size]."""
        return self.logits_of(self.model, ids)

    @staticmethod
    @torch.no_grad()
    def logits_of(model: Any, ids: list[int]) -> Tensor:
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()

    def save(self, folder: Path) -> None:
        """A checkpoint as the architecture's are published."""
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self.model.save_pretrained(folder)
        finally:
            if bars:
                logging.enable_progress_bar()

    def prompt(self, tokens: int, seed: int = 0) -> list[int]:
        generator = torch.Generator().manual_seed(1000 * seed + tokens)
        return torch.randint(0, self.vocab_size, (tokens,), generator=generator).tolist()

    def _tune(self, rounded: torch.dtype, gains: Mapping[str, float], seed: int) -> None:
        for gain in GAINS:
            self._randomise(gain, gains, seed)
            for p in self.model.parameters():
                p.data = p.data.to(rounded).float()
            self._measure()
            if self.std > LEAST_STD and all(e < MOST_ENTROPY for e in self.entropy):
                return
        raise AssertionError(
            f"random weights of {type(self.model).__name__} would hide mistakes, whatever their size (gains up to"
            f" {GAINS[-1]:g}):\n"
            f"  logits have a standard deviation of {self.std:.2f}; it must be above {LEAST_STD:g}\n"
            f"  attention has {', '.join(f'{e:.2f}' for e in self.entropy) or 'no weights'} of the entropy of uniform"
            f" attention, by layer; it must be below {MOST_ENTROPY:g}\n"
            '  instead  gains = {"*.q_proj.weight": 2.0} (names with wildcards) in the test class, or a larger config'
        )

    @torch.no_grad()
    def _randomise(self, gain: float, gains: Mapping[str, float], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.model.named_parameters():
            if p.dim() < 2:
                p.normal_(0.0 if "bias" in name else 1.0, 0.5, generator=generator)
            else:
                # A kernel of a convolution is short in its last dimension, and sums over all but the first.
                inputs = p.shape[-1] if p.shape[-1] >= 8 else math.prod(p.shape[1:])
                p.normal_(0.0, gain / inputs**0.5, generator=generator)
            p.mul_(math.prod(factor for pattern, factor in gains.items() if fnmatch(name, pattern)))

    @torch.no_grad()
    def _measure(self) -> None:
        out = self.model(torch.tensor([self.prompt(SAMPLE)]), output_attentions=True, use_cache=False)
        self.std = out.logits.std().item()
        self.entropy = [_entropy(w[0].float()) for w in out.attentions or () if w is not None]


def _entropy(weights: Tensor) -> float:
    """Of attention weights [heads, T, T], over that of uniform attention to the same keys."""
    weights = weights[:, SAMPLE // 8 :]  # the first queries have little to choose from
    seen = torch.arange(SAMPLE // 8, SAMPLE) + 1
    keys = torch.minimum(seen, (weights > 0).sum(-1).amax(0))  # a window hides the others
    entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1)
    return (entropy / keys.clamp_min(2).log()).mean().item()


def build(model_class: Any, fields: Mapping[str, Any]) -> Any:
    """transformers' model, in the plain implementation: the only one that gives out attention weights."""
    config = make_config(model_class, fields)
    return model_class._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


def make_config(model_class: Any, fields: Mapping[str, Any]) -> Any:
    """transformers' config, without fields that it does not know and would silently keep."""
    kind = model_class.config_class
    plain = kind()
    for name in fields:
        if not hasattr(plain, name):
            near = difflib.get_close_matches(name, plain.to_dict(), n=1)
            raise ValueError(
                f"{kind.__name__} has no field {name!r}" + (f"; the nearest is {near[0]!r}" if near else "")
            )
    return kind(**{name: _copy(value) for name, value in fields.items()})


def _copy(value: Any) -> Any:
    # transformers writes into dicts that it is given.
    return dict(value) if isinstance(value, dict) else value
