"""`ModelConformance`: the tests that every model plugin runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vllm_core.testing.case import Case
from vllm_core.testing.drafted import Drafted
from vllm_core.testing.fields import Fields
from vllm_core.testing.generating import Generating
from vllm_core.testing.invariant import Invariant
from vllm_core.testing.kit import Conformance
from vllm_core.testing.modes import Modes
from vllm_core.testing.plugin_module import PluginModule
from vllm_core.testing.rank_modes import RankModes
from vllm_core.testing.recorded import Recorded
from vllm_core.testing.served import computes
from vllm_core.testing.tensors import Tensors

BASE = "base"


class Cases(Mapping[str, Case]):
    """The variants of a tested model, each made when it is first asked for."""

    def __init__(self, kit: type[ModelConformance], folder: Path) -> None:
        self.kit, self.folder = kit, folder
        self._made: dict[str, Case] = {}

    def __getitem__(self, name: str) -> Case:
        if name not in self._made:
            self._made[name] = self.kit.make_case(name, self.folder / name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kit.case_names())

    def __len__(self) -> int:
        return len(self.kit.case_names())


class ModelConformance(
    Modes, Drafted, Recorded, Invariant, RankModes, Generating, Tensors, Fields, PluginModule, Conformance
):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    architecture   as in config.json "architectures"; the reference is transformers' class of that name
    config         fields of transformers' config for a tiny model
    variants       name -> fields that differ; every variant runs in every mode
    tolerance      dtype -> largest |difference| of logits over the range of the reference's. The first
                   dtype runs all tests, the others the base config in every mode
    gains          tensor name with wildcards -> factor on its random values
    device         platform to run on
    block_size     tokens a cache page; None: small where the backend takes any
    changes, unchanged, other_defaults, unread   of config fields: see `Fields`
    inert          tensors that cannot matter: see `Tensors`
    cannot         what one may expect of the model and it does not do -> why; printed after every run. Known
                   names: "ranks", "graphs", "batch invariance"
    """

    kind = "model"
    hook = "models"
    subject = "architecture"

    architecture: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    tolerance: ClassVar[Mapping[str, float]] = {"float32": 1e-4}
    gains: ClassVar[Mapping[str, float]] = {}
    device: ClassVar[str] = "auto"
    block_size: ClassVar[int | None] = None

    @classmethod
    def reference_class(cls) -> type:
        """The oracle's class; override it for one that transformers does not export under the architecture's name."""
        import transformers

        try:
            return getattr(transformers, cls.architecture)
        except AttributeError:
            raise AssertionError(
                f"transformers {transformers.__version__} has no {cls.architecture}; override reference_class() with"
                " a class that has the same surface"
            ) from None

    @classmethod
    def case_names(cls) -> list[str]:
        others = list(cls.tolerance)[1:]
        return [BASE, *cls.variants, *(f"{BASE}-{dtype}" for dtype in others)]

    @classmethod
    def make_case(cls, name: str, folder: Path) -> Case:
        if name not in cls.case_names():
            raise AssertionError(f"{cls.__name__} has no variant {name!r}; it has {', '.join(cls.case_names())}")
        dtype = next(iter(cls.tolerance))
        if name not in cls.variants and name != BASE:
            dtype = name.removeprefix(f"{BASE}-")
        return Case(
            name=name,
            model_class=cls.reference_class(),
            config={**cls.config, **cls.variants.get(name, {})},
            folder=folder,
            tolerance=cls.tolerance[dtype],
            dtype=dtype,
            device=cls.device,
            block_size=cls.block_size,
            gains=cls.gains,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def cases(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cases:
        return Cases(request.cls, tmp_path_factory.mktemp("conformance"))

    @pytest.fixture
    def case(self, cases: Cases, variant: str) -> Case:
        """Each variant, and the base config in each further dtype."""
        found = cases[variant]
        if not computes(found.dtype, found.device):
            pytest.skip(f"this machine does not compute {found.dtype} well")
        return found

    @pytest.fixture
    def sharp(self, cases: Cases, sharp_variant: str) -> Case:
        """Each variant in the first dtype, whose tolerance is taken to be narrow."""
        return cases[sharp_variant]

    @pytest.fixture
    def base(self, cases: Cases) -> Case:
        return cases[BASE]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", self.case_names())
        if "sharp_variant" in metafunc.fixturenames:
            metafunc.parametrize("sharp_variant", [BASE, *self.variants])
        if "split" in metafunc.fixturenames:
            metafunc.parametrize("split", self.splits([*self.variants], BASE), ids=", ".join)
        if "change" in metafunc.fixturenames:
            metafunc.parametrize("change", self.all_changes(), ids=lambda change: change.names)
        super().pytest_generate_tests(metafunc)
