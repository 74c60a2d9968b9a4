"""Every field of config.json that the model reads matters: with another value the comparison breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.plugin import load_target
from vllm_core.testing.case import Case
from vllm_core.weights import WeightsError


@attrs.frozen
class Change:
    """Other values for fields of one variant's config.json."""

    variant: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        where = "" if self.variant == "base" else f"{self.variant}."
        return ", ".join(f"{where}{name}={value}" for name, value in self.values.items())


class Fields:
    """
    changes     field -> another value, or a list of other values; each must break the comparison. A shape that no
                longer fits the weights counts as broken. "variant.field" changes the config of that variant;
                a tuple of fields with a tuple of values (or a list of these) changes several at once
    unchanged   field -> why no value of it can be told from another
    """

    changes: ClassVar[Mapping[str | tuple[str, ...], Any]] = {}
    unchanged: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def all_changes(cls) -> list[Change]:
        return list(_changes(cls.changes))

    def test_every_config_field_is_changed_or_explained(self, base: Case) -> None:
        model_class = load_target(base.served.resolved.build.model.target)
        fields = getattr(model_class, "Config", None)
        if fields is None or not attrs.has(fields):
            raise AssertionError(
                f"{model_class.__name__}.Config must be an attrs class of the fields of config.json that it reads"
            )
        read = {a.name for a in attrs.fields(fields)}
        told = {name for change in self.all_changes() for name in change.values} | self.unchanged.keys()
        silent, unread = sorted(read - told), sorted(told - read)
        assert not silent, (
            f"{model_class.__name__} reads {', '.join(silent)}: give `changes` another value, or `unchanged` a reason"
        )
        assert not unread, f"{model_class.__name__}.Config has no {', '.join(unread)}, which the test changes"
        empty = [name for name, reason in self.unchanged.items() if not reason.strip()]
        assert not empty, f"`unchanged` gives no reason for {', '.join(empty)}"

    def test_a_changed_config_field_breaks_the_comparison(self, cases: Mapping[str, Case], change: Change) -> None:
        case = cases[change.variant]
        config = case.served.resolved.build.model.config
        same = [name for name, value in change.values.items() if name in config and config[name] == value]
        assert not same, f"{case.name}: {', '.join(same)} has this value already; change it to another"
        try:
            served = case.serve(**change.values)
        except WeightsError:
            return  # the shapes differ
        except Exception as error:
            raise AssertionError(
                f"{change}: the engine refuses this value, which does not prove that the model reads it; give another"
            ) from error
        case.differ_on(served, case.prompt(64), str(change))


def _changes(changes: Mapping[str | tuple[str, ...], Any]) -> Iterator[Change]:
    for key, given in changes.items():
        names = key if isinstance(key, tuple) else (key,)
        variant, *others = {name.rpartition(".")[0] or "base" for name in names}
        if others:
            raise pytest.UsageError(f"changes: {key} names fields of several variants")
        fields = [name.rpartition(".")[2] for name in names]
        for value in given if isinstance(given, list) else [given]:
            values = value if isinstance(key, tuple) else (value,)
            yield Change(variant, dict(zip(fields, values, strict=True)))
