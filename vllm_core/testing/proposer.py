"""`ProposerConformance`: the tests that every draft proposer runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
import torch

from vllm_core.testing.distribution import Distribution
from vllm_core.testing.kit import Conformance, Measured
from vllm_core.testing.lossless import Lossless, asked
from vllm_core.testing.plugin_module import assert_imports_light
from vllm_core.testing.reference import Reference
from vllm_core.testing.speculating import Speculating, run

TINY_VOCABULARY = 11  # tokens
UNHEARD_OF = "unheard_of_by_anybody"  # a key of speculative_config


class ProposerConformance(Lossless, Distribution, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    method           as users write it in speculative_config
    architecture     of the model that is served, as in config.json "architectures"
    config           fields of transformers' config for a tiny one, with 40 tokens or more
    gains            tensor name with wildcards -> factor on its random values
    drafts           numbers of guesses a step; each runs all tests
    certain          guesses come without probabilities: seeded tokens are those of plain decoding, too
    least_accepted   share of the guesses that are accepted in greedy decoding, at least
    device           platform to run on
    cannot           what one may expect of the proposer and it does not do -> why; printed after every run
    """

    kind = "proposer"
    hook = "draft_proposer"
    subject = "method"

    method: ClassVar[str]
    architecture: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    gains: ClassVar[Mapping[str, float]] = {}
    drafts: ClassVar[tuple[int, ...]] = (1, 4)
    device: ClassVar[str] = "auto"

    @classmethod
    def keys(cls, folder: Path, vocab_size: int) -> Mapping[str, Any]:
        """Further keys of speculative_config, where the model in ``folder`` is served, which has so many tokens.

        Other checkpoints may be made in folders below it: `save` makes one.
        """
        return {}

    @classmethod
    def save(cls, folder: Path, seed: int = 0, architecture: str = "", **changed: Any) -> Reference:
        """A checkpoint of the tiny model: with other fields, other random weights, or of another architecture."""
        import transformers

        model_class = getattr(transformers, architecture or cls.architecture)
        reference = Reference(model_class, {**cls.config, **changed}, gains=cls.gains, seed=seed)
        reference.save(folder)
        return reference

    @pytest.fixture(scope="class")
    @classmethod
    def speculating(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Speculating:
        return request.cls._made(tmp_path_factory.mktemp("proposer"))[1]

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Reference, Speculating]:
        """A model of few tokens, whose distribution can be counted out."""
        return request.cls._made(tmp_path_factory.mktemp("proposer-tiny"), vocab_size=TINY_VOCABULARY)

    @classmethod
    def measure(cls) -> Iterator[Measured]:
        """Guesses accepted in greedy decoding, where ``least_accepted`` says that a random model can be guessed."""
        if not cls.least_accepted:
            return
        with TemporaryDirectory() as folder:
            _, speculating = cls._made(Path(folder) / "model")
            asks = asked(speculating, temperature=0.0)
            for drafts in cls.drafts:
                ran = speculating.ran(drafts, asks)
                if ran.guesses:
                    what = f"a tiny random model, greedy, {drafts} guesses a step"
                    yield Measured(what, ran.accepted / ran.guesses, "of the guesses accepted")

    @classmethod
    def _made(cls, folder: Path, **changed: Any) -> tuple[Reference, Speculating]:
        reference = cls.save(folder, **changed)
        keys = cls.keys(folder, reference.vocab_size)
        return reference, Speculating(folder, cls.method, keys, cls.device, reference.vocab_size)

    def test_the_plugin_module_imports_without_torch(self, speculating: Speculating) -> None:
        selector = _resolved(speculating).selector
        owner = next(d.provided.plugin for d in selector.decisions if d.hook == "draft_proposer")
        assert_imports_light(next(p.module for p in selector.catalog.plugins if p.name == owner))

    def test_a_key_that_it_does_not_read_ends_the_start_by_name(self, speculating: Speculating) -> None:
        with pytest.raises(Exception, match=UNHEARD_OF):
            _resolved(speculating, **{UNHEARD_OF: 1})

    def test_a_step_never_waits_for_the_device(self, speculating: Speculating, drafts: int) -> None:
        if not torch.cuda.is_available() or self.device == "cpu":
            pytest.skip("needs a CUDA device: on a CPU every operation waits")
        with speculating.engine(drafts) as engine:
            asks = [*asked(speculating, temperature=0.0), *asked(speculating, temperature=0.8)]
            run(engine, asks)  # what is compiled or allocated once happens here
            launch = engine.core.executor.launch

            def watched(plan: Any) -> Any:
                torch.cuda.set_sync_debug_mode("error")
                try:
                    return launch(plan)
                finally:
                    torch.cuda.set_sync_debug_mode("default")

            engine.core.executor.launch = watched  # type: ignore[method-assign]
            run(engine, asks)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "drafts" in metafunc.fixturenames:
            metafunc.parametrize("drafts", self.drafts)
        super().pytest_generate_tests(metafunc)


def _resolved(speculating: Speculating, **more: Any) -> Any:
    """All choices made, nothing loaded."""
    from vllm_core.engine.resolve import resolve

    keys = {**speculating.keys, **more}
    return resolve(Speculating(speculating.folder, speculating.method, keys, speculating.device, 0).settings(1))
