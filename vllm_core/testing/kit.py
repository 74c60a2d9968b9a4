"""`Conformance`: what the classes of all kits have in common, and what reports go by. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import attrs
import pytest

from vllm_core.testing.cannot import CannotReport

__all__ = ["Conformance", "Measured"]


@attrs.frozen
class Measured:
    """A figure that a report shows beside the tests. It fails nothing: a ratio within one run, or a share."""

    what: str  # of what, with its sizes: "256 rows of 1024, bfloat16"
    value: float
    unit: str  # "times as fast as the reference", "of the guesses accepted"


class Conformance:
    """The base of each kind's class, `AttentionConformance` and the like, which plugin authors subclass.

    A kind's class gives ``kind``, ``hook`` and ``subject``; where these are given, the kit begins: tests of that class
    and of its bases are the kit's, tests of its subclasses the author's own.

    kind      as in ``vllm-core plugins new --kind``
    hook      through which the core asks for it
    subject   the attribute that names what is tested, as users write it: "backend" where they set ``backend = "rapid"``
    cannot    what one may expect and it does not do -> why; printed after every run, and in every report
    """

    kind: ClassVar[str]
    hook: ClassVar[str]
    subject: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def named(cls) -> str:
        """The name of what is tested."""
        return str(getattr(cls, cls.subject))

    @classmethod
    def limits(cls) -> Mapping[str, str]:
        """All that reports list as impossible; override it where there is more than ``cannot``."""
        return cls.cannot

    @classmethod
    def measure(cls) -> Iterable[Measured]:
        """How fast it is against the kit's reference, where that means something on this machine.

        ``vllm-core plugins check`` calls it after the tests, in their process. It takes seconds, no minutes.
        """
        return ()

    def needs(self, capability: str) -> None:
        """Skip the test that calls this, with the reason, if ``cannot`` lists the capability."""
        if capability in self.cannot:
            pytest.skip(f"{type(self).__name__} cannot: {capability} ({self.cannot[capability]})")

    def test_what_it_cannot_do_is_printed(self) -> None:
        empty = [name for name, reason in self.limits().items() if not reason.strip()]
        assert not empty, f"`cannot` gives no reason for {', '.join(empty)}"
        if said := "; ".join(f"{what} ({why})" for what, why in self.limits().items()):
            pytest.skip(f"{type(self).__name__} cannot: {said}")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Kits that override this call it, too."""
        CannotReport.note(metafunc.config, type(self).__name__, self.limits())
