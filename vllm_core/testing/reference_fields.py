"""Which fields of config.json the reference reads, found by changing each: what our model must not overlook."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vllm_core.testing.case import Case
from vllm_core.testing.compare import distance
from vllm_core.testing.reference import build


def read_by_reference(case: Case, skip: Collection[str]) -> list[str]:
    """Fields that, changed alone, change the reference's logits or its weights' shapes; ``skip`` are not tried.

    Numbers, flags, activations, absent values and numbers in tables are tried. A value that
    transformers refuses tells nothing.
    """
    from transformers import PretrainedConfig

    # These steer transformers' own code, not the architecture.
    general = PretrainedConfig().to_dict().keys() - {"tie_word_embeddings"}
    fields = case.reference.model.config.to_dict()
    tried = [name for name in fields if name not in general and name not in skip and name in _declared(case)]
    return [name for name in tried if any(_matters(case, name, other) for other in other_values(name, fields[name]))]


def _declared(case: Case) -> Collection[str]:
    return case.model_class.config_class().to_dict().keys()  # type: ignore[attr-defined]


def _matters(case: Case, name: str, value: Any) -> bool:
    ids = case.prompt(40)
    try:
        changed = build(case.model_class, {**case.config, name: value})
    except Exception:
        return False  # refused
    try:
        changed.load_state_dict(case.reference.model.state_dict())
    except RuntimeError:
        return True  # other tensors, or other shapes
    try:
        logits = case.reference.logits_of(changed, ids)
    except Exception:
        return False  # refused late
    return logits.shape == case.want(ids).shape and distance(logits, case.want(ids)) > case.tolerance


def other_values(name: str, value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        yield value * 2
    elif isinstance(value, float):
        yield value * 1.5 + 0.1
    elif isinstance(value, str) and "act" in name:
        yield from ({"relu", "gelu_pytorch_tanh"} - {value})
    elif isinstance(value, Mapping):
        for key, number in value.items():
            if isinstance(number, int | float) and not isinstance(number, bool):
                yield {**value, key: number * 2}
    elif value is None:
        yield from (True, 4, 0.5)
