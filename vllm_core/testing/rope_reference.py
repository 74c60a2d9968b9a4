"""The oracle of RoPE variants: frequencies of transformers, rotation in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

HEADS = 4


class ReadFields(Mapping[str, Any]):
    """Rope parameters that remember which of them were read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields, self.read = dict(fields), set[str]()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


def wanted(rope_type: str, params: Mapping[str, Any], head_dim: int, longest: int) -> tuple[Tensor, float]:
    """transformers' frequencies [R / 2] and attention factor for sequences of ``longest`` tokens."""
    from transformers import PreTrainedConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if rope_type not in ROPE_INIT_FUNCTIONS:
        known = ", ".join(sorted(ROPE_INIT_FUNCTIONS))
        raise AssertionError(
            f'transformers has no frequencies of rope type "{rope_type}", it has {known}: override `reference` with'
            " the publication's, in float64"
        )
    given = params.fields if isinstance(params, ReadFields) else dict(params)
    length = given.get("max_position_embeddings") or longest
    # What is left out is left out, but for two: the factor, which must be there, if only to be null, and the
    # length of pre-training, for which models of transformers put in their longest sequence.
    fields = {name: value for name, value in given.items() if value is not None or name == "factor"}
    if "original_max_position_embeddings" in given:
        fields.setdefault("original_max_position_embeddings", length)
    make: Any = PreTrainedConfig
    config = make(
        head_dim=head_dim,
        hidden_size=HEADS * head_dim,
        num_attention_heads=HEADS,
        max_position_embeddings=length,
        rope_parameters={**fields, "rope_type": rope_type},
    )
    config.standardize_rope_params()
    if isinstance(params, ReadFields):
        # Once is enough; a second time the fields would be copied, and nobody see them read.
        object.__setattr__(config, "standardize_rope_params", lambda: None)
        recorded = ReadFields(dict(config.rope_parameters))
        config.rope_parameters = recorded
    frequencies, scaling = ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"), seq_len=longest)
    if isinstance(params, ReadFields):
        params.read |= recorded.read
    return frequencies, float(scaling)


def turned(x: Tensor, positions: Tensor, frequencies: Tensor, scaling: float, interleaved: bool) -> Tensor:
    """x float64 [T, heads, D] with its first R elements turned as complex numbers; the others as they are."""
    size = 2 * len(frequencies)
    head = x[..., :size]
    pairs = head.unflatten(-1, (-1, 2)) if interleaved else torch.stack(head.chunk(2, -1), -1)  # [..., R / 2, 2]
    angles = torch.outer(positions.double(), frequencies)[:, None]  # [T, 1, R / 2]
    spun = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.full_like(angles, scaling), angles)
    )
    back = spun.flatten(-2) if interleaved else torch.cat(spun.unbind(-1), -1)
    return torch.cat((back, x[..., size:]), -1)
