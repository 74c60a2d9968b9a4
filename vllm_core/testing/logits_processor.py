"""`LogitsProcessorConformance`: the tests that every logits processor runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest
from torch import Tensor

from vllm_core.interfaces.queries import LogitsProcessorQuery
from vllm_core.plugin import load_target
from vllm_core.testing.asked import Asked
from vllm_core.testing.kit import Conformance
from vllm_core.testing.logits_lines import LogitsLines
from vllm_core.testing.logits_tokens import LogitsTokens, PlainEngines
from vllm_core.testing.logits_trial import Trial
from vllm_core.testing.plugin_module import assert_imports_light
from vllm_core.testing.reference import Reference
from vllm_core.testing.waits import tensor_work

__all__ = ["LogitsProcessorConformance"]

ROWS = 4  # of the processor whose class is asked
ELSEWHERE = {"of_another_processor": [1, "two"]}


class LogitsProcessorConformance(LogitsLines, LogitsTokens, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    processor        its name, as in --logits-processors
    requests         name -> ``extra_args`` of a request that it affects
    others           ``extra_args`` of requests that it does not affect; none at all is always among them
    wrong            name -> ``extra_args`` that it must refuse in words
    architecture, config, gains   of the tiny model that is served: fields of transformers' config, 96 positions or more
    speculative      a ``speculative_config`` for one more engine, where a draft proposer is installed
    tolerance        of the largest logit of a line
    plugin_settings  fields of [plugin.NAME]
    device           platform to run on
    cannot           what one may expect and it does not do -> why; printed after every run. Known names:
                     "masked tokens" (what was ruled out stays so), "no waiting on a CPU", "wrong parameters"

    and write ``expected``, which says what becomes of one line.
    """

    kind = "logits-processor"
    hook = "logits_processor"
    subject = "processor"

    processor: ClassVar[str]
    requests: ClassVar[Mapping[str, Mapping[str, Any]]]
    others: ClassVar[Sequence[Mapping[str, Any]]] = ()
    wrong: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    architecture: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    gains: ClassVar[Mapping[str, float]] = {}
    plugin_settings: ClassVar[Mapping[str, Any]] = {}
    device: ClassVar[str] = "auto"

    def expected(self, logits: Tensor, params: Mapping[str, Any], prompt: list[int], output: list[int]) -> Any:
        """What one line becomes: float32 [V], a tensor or a list. Write it from the description, not from the code.

        logits   float32 [V], on the CPU, yours to change
        params   the request's ``extra_args``
        prompt, output   ids; output are those before the token that is drawn, drafts among them
        """
        raise NotImplementedError(
            f"{type(self).__name__} must say what the processor should do:\n"
            "  def expected(self, logits, params, prompt, output): return what one line [V] becomes"
        )

    @property
    def vocab(self) -> int:
        return int(self.config["vocab_size"])

    # ---- the plugin

    _asked: ClassVar[Asked]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def asked(cls, request: pytest.FixtureRequest) -> Asked:
        kit = request.cls
        kit._asked = Asked(kit.hook, kit.processor, kit.device, kit.plugin_settings)
        return kit._asked

    def query(self, max_rows: int = ROWS, name: str = "") -> LogitsProcessorQuery:
        asked = self._asked
        return LogitsProcessorQuery(
            name=name or self.processor, vocab_size=self.vocab, max_rows=max_rows, device=asked.device
        )

    def target(self, max_rows: int = ROWS) -> tuple[Any, LogitsProcessorQuery]:
        """The class, and what it is made from."""
        query = self.query(max_rows)
        offer = self._asked.offer(query)
        return load_target(offer.target), attrs.evolve(query, options=offer.options)

    def trial(self, max_rows: int) -> Trial:
        target, query = self.target(max_rows)
        return Trial(target(query), max_rows, self.vocab, self._asked.torch_device)

    @pytest.fixture(scope="class")
    @classmethod
    def served(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, asked: Asked
    ) -> tuple[Reference, PlainEngines]:
        """The tiny model, and engines on it that have the processor."""
        import transformers

        kit, folder = request.cls, tmp_path_factory.mktemp("processed")
        reference = Reference(getattr(transformers, kit.architecture), kit.config, gains=kit.gains)
        reference.save(folder)
        settings = {"logits_processors": [kit.processor], "plugin": {asked.plugin.name: dict(kit.plugin_settings)}}
        return reference, PlainEngines(folder, kit.device, reference.vocab_size, settings)

    def test_its_hook_offers_it_by_its_name_and_no_other(self, asked: Asked) -> None:
        assert asked.offer(self.query()).name == self.processor
        said = asked.answer(self.query(name="unheard-of-by-anybody")).offer
        assert said is None, f'asked for "unheard-of-by-anybody" it offers "{said.name}"'

    def test_the_plugin_module_imports_without_torch(self, asked: Asked) -> None:
        assert_imports_light(asked.module)

    # ---- requests

    def test_it_says_which_requests_it_affects(self) -> None:
        assert self.requests, "give `requests`: name -> extra_args"
        target, query = self.target()
        for name, params in self.requests.items():
            for more in ({}, ELSEWHERE):
                assert target.check({**params, **more}, query), f"{name}: check says that {params} is not affected"
        for params in ({}, *self.others):
            for more in ({}, ELSEWHERE):
                assert not target.check({**params, **more}, query), f"check says that {params or None} is affected"

    def test_wrong_parameters_are_refused_in_words(self) -> None:
        self.needs("wrong parameters")
        assert self.wrong, "give `wrong`: name -> extra_args that must be refused"
        target, query = self.target()
        for name, params in self.wrong.items():
            said = None
            try:
                target.check(dict(params), query)
            except ValueError as error:
                said = str(error)
            assert said is not None, f"{name}: check takes {params}; it must raise ValueError"
            assert any(key in said for key in params), f"{name}: {said!r} does not name the parameter, {[*params]}"

    def test_checking_a_request_makes_no_tensors(self) -> None:
        """It is asked in the process that prepares requests, of the class, for every request."""
        target, query = self.target()
        with tensor_work() as found:
            for params in ({}, *self.others, *self.requests.values()):
                target.check(dict(params), query)
        assert not found, f"check runs {', '.join(dict.fromkeys(found))}: it must do without tensors"
