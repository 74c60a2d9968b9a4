"""`PlatformConformance`: the tests that every platform runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import PlatformQuery
from vllm_core.plugin import Offer
from vllm_core.testing.case import Case
from vllm_core.testing.installed import Installed, InstalledConformance
from vllm_core.testing.served import computes
from vllm_core.testing.speculating import Ask, Speculating, run

__all__ = ["PlatformConformance"]

SIZES = (1, 10**6, 10**9, 10**12)  # parameters of models
_PARENT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import torch
from vllm_core.plugin import load_target
platform = load_target(sys.argv[2])()
facts = platform.facts()
platform.dtypes(), platform.token_budget(10**9), platform.max_rows(), platform.cache_memory(0), platform.world_limit()
contexts = [n for n in ("cuda", "xpu", "mps") if getattr(getattr(torch, n), "is_initialized", bool)()]
sys.exit(f"made a context of {', '.join(contexts)}" if contexts else 0)
"""


class PlatformConformance(InstalledConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed, on such a device.

    platform       its name, as in --device
    automatic      it is taken where the user names none, if the device is there
    architecture   of the model that is served, as in config.json "architectures"; a plugin that serves it must be there
    config         fields of transformers' config for a tiny one, with 100 tokens or more
    gains          tensor name with wildcards -> factor on its random values
    tolerance      dtype -> largest difference of logits from transformers' on the CPU, over their range
    """

    kind = "platform"
    hook = "platform"
    subject = "platform"

    platform: ClassVar[str]
    automatic: ClassVar[bool] = True
    architecture: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    gains: ClassVar[Mapping[str, float]] = {}
    tolerance: ClassVar[Mapping[str, float]] = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 4e-3}

    # ---- what tests use

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, installed: Installed) -> Any:
        return installed.choose(PlatformQuery(name=cls.platform)).load()

    @pytest.fixture
    def made(self, target: Any) -> Any:
        return target()

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        """The model on this platform, in float32, beside transformers' on the CPU."""
        import transformers

        return Case(
            name=cls.platform,
            model_class=getattr(transformers, cls.architecture),
            config=cls.config,
            folder=tmp_path_factory.mktemp("platform"),
            tolerance=cls.tolerance["float32"],
            device=cls.platform,
            gains=cls.gains,
        )

    # ---- offers and facts

    def test_its_hook_offers_it_by_name_and_is_silent_on_other_names(self, installed: Installed) -> None:
        offer = installed.answer(PlatformQuery(name=self.platform))
        assert isinstance(offer, Offer), f"{self.hook} answers {offer!r} to its own name"
        assert offer.name == self.platform
        assert installed.answer(PlatformQuery(name="unheard-of-by-anybody")) is None, "it answers to another's name"

    def test_it_is_taken_unasked_only_if_it_says_so(self, installed: Installed) -> None:
        answer = installed.answer(PlatformQuery(name="auto"))
        assert isinstance(answer, Offer) == self.automatic, (
            f'to "auto" {self.hook} answers {answer!r}, and `automatic` is {self.automatic}'
        )

    def test_the_parent_learns_the_facts_without_a_device_context(self, installed: Installed) -> None:
        offer = installed.choose(PlatformQuery(name=self.platform)).offer
        command = [sys.executable, "-c", _PARENT, json.dumps(sys.path), offer.target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]

    def test_facts_are_whole_and_do_not_change(self, made: Any, target: Any) -> None:
        facts = made.facts()
        assert isinstance(facts, Device)
        assert facts == made.facts() == target().facts()
        assert torch.device(facts.type).type == facts.type
        assert facts.name, "facts().name is empty: reports would not say what runs"
        assert facts.count >= 1
        assert facts.memory > 0
        assert made.name == self.platform

    def test_defaults_are_numbers_that_start_an_engine(self, made: Any) -> None:
        budgets = [made.token_budget(size) for size in SIZES]
        assert all(type(budget) is int and budget >= 1 for budget in budgets), f"token_budget gives {budgets}"
        assert budgets == sorted(budgets, reverse=True), f"larger models get larger steps: {budgets}"
        for name, value in (("max_rows", made.max_rows()), ("world_limit", made.world_limit())):
            assert type(value) is int, f"{name}() is {value!r}"
            assert value >= 1, f"{name}() is {value!r}"
        assert isinstance(made.pinned(), bool)

    def test_the_cache_gets_what_is_there_and_no_more(self, made: Any) -> None:
        memory = made.facts().memory
        shares = [made.cache_memory(taken) for taken in (0, memory // 2, memory, 2 * memory)]
        assert all(type(share) is int and 0 <= share <= memory for share in shares), (
            f"cache_memory gives {shares} of {memory} bytes"
        )
        assert shares[0] > 0
        # Others use the memory, too: what is free changes while this asks.
        assert all(b <= a + memory // 8 for a, b in pairwise(shares)), (
            f"the more is taken, the more a cache gets: {shares}"
        )
        if hasattr(made, "process_memory"):
            assert 0 <= made.process_memory() < memory

    # ---- the device

    def test_every_rank_of_this_host_has_its_device(self, made: Any) -> None:
        facts = made.facts()
        for rank in range(facts.count):
            device = made.torch_device(rank)
            assert isinstance(device, torch.device)
            assert device.type == facts.type, f"rank {rank} is on {device}, and facts() say {facts.type}"
            assert torch.ones(3, device=device).sum().item() == 3
            assert 0 < made.free_memory(rank) <= facts.memory
        made.torch_device(0)

    def test_every_dtype_is_computed_in(self, made: Any) -> None:
        device, names = made.torch_device(0), made.dtypes()
        assert isinstance(names, tuple)
        assert "float32" in names, "comparisons need float32"
        for name in names:
            dtype = getattr(torch, name)
            x = torch.arange(6, dtype=torch.float32).reshape(2, 3).to(device, dtype)
            made.synchronize()
            assert (x @ x.T).float().cpu().tolist() == [[5.0, 14.0], [14.0, 50.0]], f"a product in {name} is wrong"

    def test_streams_and_events_are_there_or_work_is_done_when_called(self, made: Any) -> None:
        device = made.torch_device(0)
        stream, event = made.stream(), made.event()
        assert (stream is None) == (event is None), f"a stream is {stream!r}, and an event {event!r}"
        if stream is None or event is None:
            return
        with stream:
            x = torch.ones(1000, device=device).sum()
            event.record()
        event.synchronize()
        assert event.query() is True
        stream.synchronize()
        assert x.item() == 1000

    # ---- a model

    def test_a_model_has_the_logits_of_the_cpu(self, case: Case) -> None:
        """A prompt at once, in parts, and token by token from its pages."""
        case.agree_on(case.idle(), case.prompt(48), "a prompt at once")
        served = case.idle()
        row = served.row(case.prompt(40, 1))
        for tokens in (17, 20, 1, 1, 1):
            case.agree(served.step([(row, tokens)])[0], row, f"{tokens} tokens behind {row.computed}")
        served.release(row)

    def test_other_dtypes_agree_up_to_their_rounding(self, case: Case, made: Any, tmp_path: Path) -> None:
        for name in made.dtypes():
            if name == "float32" or name not in self.tolerance or not computes(name, self.platform):
                continue
            other = Case(
                name=f"{self.platform} in {name}", model_class=case.model_class, config=case.config,
                folder=tmp_path / name, tolerance=self.tolerance[name], dtype=name, device=self.platform,
                gains=case.gains,
            )  # fmt: skip
            other.agree_on(other.served, other.prompt(48), name)

    def test_an_engine_generates_what_the_cpu_would(self, case: Case) -> None:
        """Greedy, with a cache too small for all: each token is the best of transformers' after those before it."""
        tiny = Speculating(case.folder, "", {}, self.platform, case.reference.vocab_size)
        asks = [Ask(tuple(case.prompt(n, n)), _greedy(24)) for n in (19, 3, 30, 8)]
        with tiny.engine(0, **tiny.tight(0, 30 + 24)) as engine:
            ran = run(engine, asks)
        assert sum(o.metrics.num_preemptions for o in ran.outputs), "the kit gave the engine too large a cache"
        for ask, ids in zip(asks, ran.tokens, strict=True):
            logits = case.want([*ask.prompt, *ids])[len(ask.prompt) - 1 : -1]
            short = logits.amax(-1) - logits.gather(1, torch.tensor(ids)[:, None])[:, 0]
            worst = (short.max() / (logits.max() - logits.min())).item()
            assert worst <= 2 * case.tolerance, (
                f"a greedy token has a logit that is {worst:.2g} of the range below the best one on the CPU"
            )


def _greedy(tokens: int) -> Any:
    from vllm_core.engine.sampling_params import SamplingParams

    return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
