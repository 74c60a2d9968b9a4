"""`SamplerConformance`: the tests that every sampler runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.interfaces.queries import SamplerQuery
from vllm_core.interfaces.sampler import Sampler
from vllm_core.plugin import Offer, load_target
from vllm_core.testing.asked import Asked
from vllm_core.testing.logits_tokens import PlainEngines
from vllm_core.testing.plugin_module import assert_imports_light
from vllm_core.testing.reference import Reference
from vllm_core.testing.sampler_draws import SamplerDraws
from vllm_core.testing.sampler_lines import SamplerLine
from vllm_core.testing.sampler_tokens import SamplerTokens

__all__ = ["SamplerConformance", "SamplerLine"]

VOCABULARY = 300  # tokens, where the size does not matter


class SamplerConformance(SamplerDraws, SamplerTokens):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    sampler          the name of its offer
    architecture, config, gains   of the tiny model that is served: fields of transformers' config, 96 positions or more
    tolerance        largest error of a probability
    plugin_settings  fields of [plugin.NAME]
    device           platform to run on
    cannot           what one may expect and it does not do -> why; printed after every run. Known names:
                     "the token that noise picks" (tokens in order of ids), "no waiting on a CPU"

    One that draws otherwise than the contract says writes ``expected``.
    """

    kind = "sampler"
    hook = "sampler"
    subject = "sampler"

    sampler: ClassVar[str]
    architecture: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    gains: ClassVar[Mapping[str, float]] = {}
    plugin_settings: ClassVar[Mapping[str, Any]] = {}
    device: ClassVar[str] = "auto"

    # ---- the plugin

    _asked: ClassVar[Asked]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def asked(cls, request: pytest.FixtureRequest) -> Asked:
        kit = request.cls
        kit._asked = Asked(kit.hook, kit.sampler, kit.device, kit.plugin_settings)
        return kit._asked

    def query(self, vocab: int = VOCABULARY, batch_invariant: bool = False) -> SamplerQuery:
        return SamplerQuery(vocab_size=vocab, device=self._asked.device, batch_invariant=batch_invariant)

    def offer(self, vocab: int) -> Offer:
        return self._asked.offer(self.query(vocab))

    def make(self, vocab: int) -> Sampler:
        offer = self.offer(vocab)
        return load_target(offer.target)(attrs.evolve(self.query(vocab), options=offer.options))

    def invariant(self, vocab: int) -> bool:
        return "batch_invariant" in self.offer(vocab).capabilities

    def place(self) -> str:
        return str(self._asked.torch_device)

    @pytest.fixture(scope="class")
    @classmethod
    def served(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, asked: Asked
    ) -> tuple[Reference, PlainEngines]:
        """The tiny model, and engines on it in which this sampler draws."""
        import transformers

        kit, folder = request.cls, tmp_path_factory.mktemp("sampled")
        reference = Reference(getattr(transformers, kit.architecture), kit.config, gains=kit.gains)
        reference.save(folder)
        settings = {"sampler": kit.sampler, "plugin": {asked.plugin.name: dict(kit.plugin_settings)}}
        return reference, PlainEngines(folder, kit.device, reference.vocab_size, settings)

    def test_its_hook_offers_it(self, asked: Asked) -> None:
        said = asked.offer(self.query())
        assert said.name == self.sampler
        if "batch_invariant" in said.capabilities:
            again = asked.answer(self.query(batch_invariant=True)).offer
            assert again is not None, "it says batch_invariant, and does not offer where that is asked for"
            assert "batch_invariant" in again.capabilities

    def test_the_plugin_module_imports_without_torch(self, asked: Asked) -> None:
        assert_imports_light(asked.module)
