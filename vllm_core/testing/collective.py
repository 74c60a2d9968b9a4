"""`CollectiveConformance`: the tests that every collective runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from vllm_core.interfaces.queries import CollectiveQuery
from vllm_core.testing.asked import Asked
from vllm_core.testing.collective_leaving import CollectiveLeaving
from vllm_core.testing.collective_members import Members
from vllm_core.testing.collective_offers import CollectiveOffers
from vllm_core.testing.collective_order import CollectiveOrder
from vllm_core.testing.collective_results import CollectiveResults
from vllm_core.testing.kit import Conformance

OPS = ("all_reduce", "all_gather")


class CollectiveConformance(CollectiveResults, CollectiveOrder, CollectiveLeaving, CollectiveOffers, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    collective      the name of its offer
    op              "all_reduce" or "all_gather"
    worlds          numbers of ranks, threads of this process with gloo between them
    device          platform to run on; on "cuda" each rank needs a device of its own
    tolerance       dtype -> largest error of a sum over the sum of its terms' sizes
    timeout         seconds that a rank waits for another one in the tests where all come
    plugin_settings fields of [plugin.NAME]
    cannot          a dtype, "odd sizes", "empty" or "strided" tensors that it does not take -> why; any other name may
                    be added. It must not take these, and its reasons are printed after every run
    """

    kind = "collective"
    hook = "collective"
    subject = "collective"

    collective: ClassVar[str]
    op: ClassVar[str] = "all_reduce"
    worlds: ClassVar[tuple[int, ...]] = (2, 3, 4)
    device: ClassVar[str] = "auto"
    tolerance: ClassVar[Mapping[str, float]] = {"float32": 1e-6, "bfloat16": 8e-3, "float16": 1e-3}
    timeout: ClassVar[float] = 60.0
    plugin_settings: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def served(cls) -> list[str]:
        """The dtypes that ``cannot`` does not list."""
        return [dtype for dtype in cls.tolerance if dtype not in cls.cannot]

    def query(self, asked: Asked, world: int, dtype: str) -> CollectiveQuery:
        return CollectiveQuery(op=self.op, group="tp", world_size=world, dtype=dtype, device=asked.device)

    def members(self, asked: Asked, world: int, dtype: str = "", timeout: float | None = None) -> Members:
        """The collective on every rank of a group, as a worker makes it."""
        query = self.query(asked, world, dtype or self.served()[0])
        return Members(asked.offer(query), query, asked.torch_device.type, timeout or self.timeout)

    @classmethod
    def ask(cls) -> Asked:
        return Asked("collective", cls.collective, cls.device, cls.plugin_settings)

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, request: pytest.FixtureRequest) -> Asked:
        return request.cls.ask()

    @pytest.fixture
    def group(self, asked: Asked, world: int) -> Iterator[Members]:
        """Of the first dtype that is served."""
        with self.members(asked, world) as found:
            yield found

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if self.op not in OPS:
            raise pytest.UsageError(f"{type(self).__name__}.op is {self.op!r}; the kit tests {' and '.join(OPS)}")
        if "world" in metafunc.fixturenames or "group" in metafunc.fixturenames:
            metafunc.parametrize("world", self.worlds, ids=lambda world: f"{world} ranks")
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.served())
        super().pytest_generate_tests(metafunc)
