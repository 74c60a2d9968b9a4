"""Every field of config.json that the model reads matters: with another value the comparison breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.plugin import load_target
from vllm_core.testing.case import Case
from vllm_core.testing.reference_fields import read_by_reference
from vllm_core.weights import WeightsError


@attrs.frozen
class Change:
    """Other values for fields of one variant's config.json."""

    variant: str
    values: Mapping[str, Any]

    @property
    def names(self) -> str:
        where = "" if self.variant == "base" else f"{self.variant}."
        return "+".join(where + name for name in self.values)

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value!r}" for name, value in self.values.items())


class Fields:
    """Tests of the config, most of them of the base variant.

    changes     field -> another value, or a list of other values; each must break the comparison. A shape that no
                longer fits the weights counts as broken. "variant.field" changes the config of that variant;
                a tuple of fields with a tuple of values (or a list of these) changes several at once,
                beside a change of each alone
    unchanged   field -> why no value of it can be told from another
    other_defaults   field -> why its default is not the one of transformers' config
    unread      field that transformers' model reads and ours does not -> why that is right
    """

    changes: ClassVar[Mapping[str | tuple[str, ...], Any]] = {}
    unchanged: ClassVar[Mapping[str, str]] = {}
    other_defaults: ClassVar[Mapping[str, str]] = {}
    unread: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def all_changes(cls) -> list[Change]:
        return list(_changes(cls.changes))

    def test_every_config_field_is_changed_or_explained(self, base: Case) -> None:
        who, fields = _fields(base)
        read = {a.name for a in fields}
        named = {name for change in self.all_changes() for name in change.values} | self.unchanged.keys()
        # Several at once do not show which of them is read.
        alone = {name for change in self.all_changes() if len(change.values) == 1 for name in change.values}
        silent, unread = sorted(read - alone - self.unchanged.keys()), sorted(named - read)
        assert not silent, f"{who} reads {', '.join(silent)}: give `changes` another value, or `unchanged` a reason"
        assert not unread, f"{who}.Config has no {', '.join(unread)}, which the test names"
        for attribute in ("unchanged", "other_defaults", "unread"):
            empty = [name for name, reason in getattr(self, attribute).items() if not reason.strip()]
            assert not empty, f"`{attribute}` gives no reason for {', '.join(empty)}"

    def test_a_config_without_a_field_means_what_it_means_to_transformers(self, base: Case) -> None:
        """Older checkpoints lack fields that came later."""
        theirs = base.model_class.config_class()  # type: ignore[attr-defined]
        who, fields = _fields(base)
        for a in fields:
            computed = a.default is attrs.NOTHING or isinstance(a.default, attrs.Factory)  # type: ignore[arg-type]
            if computed or a.name in self.other_defaults or not hasattr(theirs, a.name):
                continue
            default = getattr(theirs, a.name)
            assert a.default == default, (
                f"{who}.Config takes {a.name} = {a.default!r} where config.json has none, and {type(theirs).__name__}"
                f" {default!r}; take that, or give `other_defaults` the reason"
            )

    def test_no_field_that_transformers_reads_is_overlooked(self, sharp: Case) -> None:
        """Whoever overlooks a field serves checkpoints in which it differs with wrong answers and no error."""
        who, fields = _fields(sharp)
        overlooked = read_by_reference(sharp, skip={a.name for a in fields} | self.unread.keys())
        assert not overlooked, (
            f"{sharp.name}: transformers' {sharp.model_class.__name__} reads {', '.join(overlooked)}, and {who}.Config"
            " does not: read it, or give `unread` the reason"
        )

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


def _fields(case: Case) -> tuple[str, Sequence[Any]]:
    """The name of our model class, and the attributes of its ``Config``."""
    ours = load_target(case.served.resolved.build.model.target)
    config = getattr(ours, "Config", None)
    if config is None or not attrs.has(config):
        raise AssertionError(f"{ours.__name__}.Config must be an attrs class: the fields of config.json that it reads")
    return ours.__name__, attrs.fields(config)


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
