"""What a model makes of the fields of config.json."""

from __future__ import annotations

import attrs
import pytest

from vllm_core.layers import read_config


@attrs.frozen(kw_only=True)
class Fields:
    size: int
    eps: float = 1e-6
    window: int | None = 4096


def test_what_is_missing_takes_its_default():
    assert read_config(Fields, {"size": 3, "other": 1}, "X") == Fields(size=3)


def test_null_is_missing_unless_the_type_has_none():
    assert read_config(Fields, {"size": 3, "eps": None, "window": None}, "X") == Fields(size=3, window=None)


def test_a_field_without_a_default_must_be_there():
    with pytest.raises(ValueError, match=r"config\.json lacks 'size', which X needs"):
        read_config(Fields, {"size": None}, "X")


@pytest.mark.parametrize("given", [{"size": "3"}, {"size": 3, "window": 2.5}, {"size": 3, "window": True}])
def test_another_type_is_refused_by_name(given):
    with pytest.raises(ValueError, match=r"'(size|window)' in config\.json must be int, not .* \(X\)"):
        read_config(Fields, given, "X")
