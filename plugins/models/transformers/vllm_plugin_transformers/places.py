"""Where each tensor of a checkpoint goes in the parameters of a model of transformers, as weight rules.

transformers stores some models otherwise than it runs them: other names, experts one by one. It keeps the way
back and forth in ``conversion_mapping``. We let it convert the names and shapes of the model, without data, to
those of a checkpoint, and look where each of them would come back to.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from torch import Tensor

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.weights import Rule, ignore, rule
from vllm_core.weights.patterns import Capture, Pattern
from vllm_plugin_transformers.errors import CannotServe


@attrs.frozen
class Place:
    """A tensor of the checkpoint in a parameter (or persistent buffer) of the model."""

    name: str  # in the checkpoint
    target: str  # in the model
    slot: str  # "" if it fills the whole
    range: SlotRange


def find_places(model: Any) -> tuple[list[Place], dict[str, str]]:
    """All tensors that a checkpoint of ``model`` (on the meta device) has; and tied name -> the name it is tied to."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
        revert_weight_conversion,
    )

    tensors, tied = _own_tensors(model)
    stored: dict[str, Tensor] = revert_weight_conversion(model, dict(tensors))
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    gathered: dict[tuple[str, str | None], list[str]] = {}  # (target, pattern of the converter) -> names
    for name in sorted(stored, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, tensors)
        if target not in tensors:
            raise CannotServe(f"its tensor {name} would go to {target}, which the model does not have")
        gathered.setdefault((target, pattern), []).append(name)
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    places: list[Place] = []
    for target in dict.fromkeys(target for target, _ in gathered):
        shape = tuple(tensors[target].shape)
        patterns = {pattern: names for (t, pattern), names in gathered.items() if t == target}
        if None in patterns:
            (name,) = patterns[None]
            places.append(Place(name, target, "", SlotRange(shape)))
            continue
        converter = by_pattern[next(iter(patterns))]  # type: ignore[index]
        ordered = [patterns[p] for p in converter.source_patterns if p in patterns]
        places += _parts(target, shape, ordered, converter.operations, stored)
    return places, tied


def _own_tensors(model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parameters and persistent buffers, each once; and the other names that tied ones go by."""
    tied: dict[str, str] = dict(getattr(model, "all_tied_weights_keys", None) or {})
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    everything = model.state_dict(keep_vars=True)
    for name in sorted(everything, key=lambda name: name in tied):
        known = first.setdefault(id(everything[name]), name)
        if known == name:
            tensors[name] = everything[name]
            tied.pop(name, None)  # tied by the class, and kept apart by this config
        else:
            tied[name] = known
    return tensors, tied


def _parts(
    target: str, shape: tuple[int, ...], sources: list[list[str]], operations: list[Any], stored: Mapping[str, Tensor]
) -> list[Place]:
    """Of a parameter that several tensors fill: experts stacked along dimension 0, then matrices joined."""
    kinds: list[tuple[str, int]] = [(type(op).__name__, getattr(op, "dim", -1)) for op in operations]
    stacked = ("MergeModulelist", 0) in kinds
    joined = [dim for kind, dim in kinds if kind == "Concatenate"]
    if len(kinds) != stacked + len(joined) or len(joined) > 1 or (stacked and joined == [0]):
        raise CannotServe(f"its checkpoint stores {target} in a way that we cannot read: {operations}")
    places, at = [], 0  # at: along the dimension in which they are joined
    for number, names in enumerate(sources):
        for index, name in enumerate(names):
            part = tuple(stored[name].shape)
            spans = [(0, n) for n in shape]
            if stacked:
                spans[0] = (index, index + 1)
            if joined:
                size = part[joined[0] - stacked]
                spans[joined[0]] = (at, at + size)
                at += 0 if stacked else size
            places.append(Place(name, target, f"{number}.{index}", SlotRange(part, (), tuple(spans))))
        at += stored[names[0]].shape[joined[0] - 1] if stacked and joined else 0
    return places


class Search(Pattern):
    """A pattern of transformers: a regular expression that stands anywhere in a name."""

    def regex(self, known: Mapping[str, Capture] | None = None) -> str:
        inner = re.sub(r"(?<!\\)\((?!\?)", "(?:", self.text)  # a group of its own would count as a capture
        return f"(?:{inner}).*" if inner.startswith("^") else f".*(?:{inner}).*"


def without_place(model: Any, places: Iterable[Place]) -> list[Rule]:
    """Tensors that transformers leaves unread, such as layers for drafts that it does not have."""
    texts = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    names = [place.name for place in places]
    return [
        Rule(Search(text, (text,), ()), None, Pattern.parse(""), reason="transformers' model has nothing of that name")
        for text in sorted(texts)
        if not any(re.search(text, name) for name in names)
    ]


def make_rules(places: Iterable[Place], tied: Mapping[str, str], root: str, base: str) -> list[Rule]:
    """One rule for all layers and experts where their names differ in numbers only.

    root   the path that the model has in ours
    base   prefix of the base model's tensors, which checkpoints of the base model alone leave out
    """
    alike: dict[str, list[Place]] = {}  # names with captures for their numbers -> the places of all such names
    for place in places:
        alike.setdefault(_captures(place.name), []).append(place)
    rules = [ignore("rotary_emb.inv_freq", "computed, not loaded")]
    rules += [ignore(name, f"tied to {source}") for name, source in tied.items()]
    lines = []
    for pattern, same in alike.items():
        ways = {_general(place) for place in same}
        if len(ways) == 1 and None not in ways:
            lines.append((pattern, *ways.pop()))  # type: ignore[misc]
        else:  # the same numbers mean different things: each by its own name
            lines += [(p.name, p.target, p.slot) for p in same]
    known = {pattern for pattern, _, _ in lines}
    for pattern, target, slot in lines:
        rules.append(rule(pattern, f"{root}.{target}", slot))
        short = pattern.removeprefix(f"{base}.")
        if short not in known:
            rules.append(rule(short, f"{root}.{target}", slot))
    return rules


_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # between dots, or at an end


def _captures(name: str) -> str:
    numbers = itertools.count()
    return _NUMBER.sub(lambda _: f"{{n{next(numbers)}}}", name)


def _general(place: Place) -> tuple[str, str] | None:
    """Target and slot with the captures of the name; None if their numbers are not those of the name."""
    numbers = [(found.group(), f"{{n{i}}}") for i, found in enumerate(_NUMBER.finditer(place.name))]

    def capture(found: re.Match[str]) -> str:
        for at, (number, name) in enumerate(numbers):
            if number == found.group():
                del numbers[at]
                return name
        return found.group()

    target = _NUMBER.sub(capture, place.target)
    part, _, index = place.slot.partition(".")
    slot = place.slot and f"{part}." + _NUMBER.sub(capture, index)
    return None if numbers else (target, slot)
