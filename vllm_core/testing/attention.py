"""`AttentionConformance`: the tests that every attention backend runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_cases import FEATURES, AttentionCase, asks, grid
from vllm_core.testing.attention_declared import AttentionDeclared
from vllm_core.testing.attention_offers import AttentionOffers
from vllm_core.testing.attention_pages import AttentionPages
from vllm_core.testing.attention_results import AttentionResults
from vllm_core.testing.attention_speed import PLAIN, speeds
from vllm_core.testing.kit import Conformance, Measured


class AttentionConformance(AttentionResults, AttentionPages, AttentionDeclared, AttentionOffers, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    backend         the name of its offer, as in --attention-backend
    device          platform to run on
    tolerance       dtype -> largest |difference| over the largest |value| of the float64 reference
    plugin_settings fields of [plugin.NAME]
    cannot          feature that the backend refuses -> why; "a+b" refuses features only together.
                    It must refuse these and nothing else, and its reasons are printed after every run
    """

    kind = "attention"
    hook = "attention_backend"
    subject = "backend"

    backend: ClassVar[str]
    device: ClassVar[str] = "auto"
    tolerance: ClassVar[Mapping[str, float]] = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}
    plugin_settings: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def refused(cls, settings: Mapping[str, object]) -> bool:
        """Whether ``cannot`` says that a layer with these settings is not served."""
        asked = asks(settings)
        return any(asked.issuperset(name.split("+")) for name in cls.cannot if "lse" not in name.split("+"))

    @classmethod
    def plain(cls) -> Mapping[str, object]:
        """The settings that ask for nothing but a dtype: the first that is not refused."""
        dtypes = [{"dtype": dtype} for dtype in cls.tolerance]
        return next((settings for settings in dtypes if not cls.refused(settings)), dtypes[0])

    @classmethod
    def cases(cls) -> list[AttentionCase]:
        found = [c for c in grid(cls.plain()) if c.settings["dtype"] in cls.tolerance]
        return [c for c in found if not cls.refused(c.settings)]

    @classmethod
    def has_lse(cls, case: AttentionCase) -> bool:
        """Whether ``cannot`` leaves log-sum-exp for these settings."""
        asked = asks(case.settings) | {"lse"}
        return not any(asked.issuperset(name.split("+")) for name in cls.cannot)

    @classmethod
    def measure(cls) -> Iterator[Measured]:
        """Against the core's plain backend, at the settings that ask for nothing."""
        if cls.backend != PLAIN:
            yield from speeds(AskedBackend(cls.backend, cls.device, cls.plugin_settings), cls.plain())

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, request: pytest.FixtureRequest) -> AskedBackend:
        kit = request.cls
        return AskedBackend(kit.backend, kit.device, kit.plugin_settings)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases(), ids=str)
        if "lse_case" in metafunc.fixturenames:
            metafunc.parametrize("lse_case", [c for c in self.cases() if self.has_lse(c)], ids=str)
        if "feature" in metafunc.fixturenames:
            metafunc.parametrize("feature", [name for name in FEATURES if name not in self.cannot])
        if "lacking" in metafunc.fixturenames:
            metafunc.parametrize("lacking", list(self.cannot))
        super().pytest_generate_tests(metafunc)
