"""What one class of conformance tests came to: the row of a report. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs

from vllm_core.testing.kit import Conformance, Measured
from vllm_core.testing.parts import kit_of

__all__ = ["Failure", "Row"]


@attrs.frozen
class Failure:
    """A test that failed, and the first lines of why."""

    test: str  # as pytest names it
    part: str
    reason: str


@attrs.define
class Row:
    """One class of conformance tests. Counts are of tests."""

    kind: str  # "model", "tool-parser", ...
    hook: str
    offer: str
    tests: str  # name of the class
    file: str
    cannot: dict[str, str]
    collected: Counter[str] = attrs.field(factory=Counter)  # by part of the kit
    passed: Counter[str] = attrs.field(factory=Counter)  # by part of the kit
    skipped: Counter[str] = attrs.field(factory=Counter)  # by reason; what it cannot do is left out
    failed: list[Failure] = attrs.field(factory=list)
    replaced: list[str] = attrs.field(factory=list)  # tests of the kit that the class has its own of
    measured: list[Measured] = attrs.field(factory=list)
    unmeasured: str = ""  # why there are no figures, if that went wrong

    @classmethod
    def of(cls, tests: type[Conformance], file: str) -> Row:
        kit = kit_of(tests)
        return cls(
            kind=kit.kind,
            hook=kit.hook,
            offer=tests.named() if hasattr(tests, tests.subject) else tests.__name__,
            tests=tests.__name__,
            file=file,
            cannot=dict(tests.limits()),
        )

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Row:
        """The inverse of ``attrs.asdict``."""
        made = {
            "collected": Counter(plain["collected"]),
            "passed": Counter(plain["passed"]),
            "skipped": Counter(plain["skipped"]),
            "failed": [Failure(**one) for one in plain["failed"]],
            "measured": [Measured(**one) for one in plain["measured"]],
        }
        return cls(**{**plain, **made})
