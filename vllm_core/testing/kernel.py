"""`KernelConformance`: the tests that every kernel of the op table runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import pytest

from vllm_core.interfaces.queries import OpQuery
from vllm_core.testing.asked import Asked
from vllm_core.testing.kernel_case import OpCase
from vllm_core.testing.kernel_device import KernelDevice
from vllm_core.testing.kernel_layer_cases import layer_cases
from vllm_core.testing.kernel_memory import KernelMemory
from vllm_core.testing.kernel_offers import KernelOffers
from vllm_core.testing.kernel_results import KernelResults
from vllm_core.testing.kernel_run import Made, make_kernel
from vllm_core.testing.kernel_speed import speed
from vllm_core.testing.kernel_step_cases import step_cases
from vllm_core.testing.kit import Conformance, Measured


class KernelConformance(KernelResults, KernelMemory, KernelDevice, KernelOffers, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    kernel          the name of its offer
    ops             names in the op table that it offers: each runs all tests, for every dtype and size
    elsewhere       op that it offers -> where it is tested: layers in one, whose reference is their composition
    device          platform to run on
    tolerance       dtype -> largest error of an element over what its inputs make possible (`kernel_case.Want.room`)
    batch_invariant ask as under --batch-invariant
    plugin_settings fields of [plugin.NAME]
    cannot          what it refuses -> why: a dtype, an op with its dtype ("linear.float16"), the name of some sizes
                    ("odd"), or both ("linear.odd"). It must refuse these and nothing else, and its reasons are printed
                    after every run
    """

    kind = "kernel"
    hook = "op_kernel"
    subject = "kernel"

    kernel: ClassVar[str]
    ops: ClassVar[Sequence[str]]
    elsewhere: ClassVar[Mapping[str, str]] = {}
    device: ClassVar[str] = "auto"
    tolerance: ClassVar[Mapping[str, float]] = {"float32": 2e-6, "bfloat16": 8e-3, "float16": 1e-3}
    batch_invariant: ClassVar[bool] = False
    plugin_settings: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def refused(cls, case: OpCase, dtype: str) -> str:
        """The entry of ``cannot`` that covers this; "" if none does."""
        sizes = case.name.split(", ")
        names = [dtype, case.op, f"{case.op}.{dtype}", case.name, f"{case.op}.{case.name}"]
        names += [*sizes, *(f"{case.op}.{size}" for size in sizes)]
        return next((name for name in names if name in cls.cannot), "")

    @classmethod
    def cases(cls) -> list[tuple[OpCase, str]]:
        """(case, dtype) of the ops that are tested."""
        return [(c, d) for c in all_cases() if c.op in cls.ops for d in c.dtypes if d in cls.tolerance]

    @classmethod
    def served(cls, op: str = "") -> list[tuple[OpCase, str]]:
        """Those that ``cannot`` does not list, of one op or of all."""
        return [(c, d) for c, d in cls.cases() if op in ("", c.op) and not cls.refused(c, d)]

    def each(self, asked: Asked, op: str) -> list[Made]:
        """A kernel for each size and dtype of an op."""
        return [self.made(asked, *case) for case in self.served(op)]

    def bound(self, dtype: str) -> float:
        """The tolerance of a result of this dtype."""
        return self.tolerance.get(dtype, KernelConformance.tolerance.get(dtype, 0.0))

    def query(self, asked: Asked, case: OpCase, dtype: str) -> OpQuery:
        return OpQuery(
            op=case.op,
            dtype=dtype,
            device=asked.device,
            shape=dict(case.shape),
            batch_invariant=self.batch_invariant,
        )

    def made(self, asked: Asked, case: OpCase, dtype: str) -> Made:
        """The kernel as a layer comes by it."""
        return make_kernel(asked, self.query(asked, case, dtype), case)

    @classmethod
    def measure(cls) -> Iterator[Measured]:
        """Against the core's plain version, at the largest of the kit's sizes."""
        asked, kit = cls.ask(), cls()
        for op in cls.ops:
            found = [(case, dtype) for case, dtype in cls.served(op) if case.name == "large"]
            for case, dtype in found:
                yield speed(kit.made(asked, case, dtype))

    @classmethod
    def ask(cls) -> Asked:
        return Asked("op_kernel", cls.kernel, cls.device, cls.plugin_settings)

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, request: pytest.FixtureRequest) -> Asked:
        return request.cls.ask()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        known = {case.op for case in all_cases()}
        if unknown := [op for op in self.ops if op not in known]:
            raise pytest.UsageError(
                f"{type(self).__name__}.ops names {', '.join(unknown)}, of which the kit has no cases; it has"
                f" {', '.join(sorted(known))}. What is tested by other means goes into `elsewhere`"
            )
        if "case" in metafunc.fixturenames:
            served = self.served()
            metafunc.parametrize("case", served, ids=[f"{c}-{d}" for c, d in served])
        if "op" in metafunc.fixturenames:
            metafunc.parametrize("op", self.ops)
        if "lacking" in metafunc.fixturenames:
            metafunc.parametrize("lacking", list(self.cannot))
        super().pytest_generate_tests(metafunc)


@cache
def all_cases() -> tuple[OpCase, ...]:
    return (*layer_cases(), *step_cases())
