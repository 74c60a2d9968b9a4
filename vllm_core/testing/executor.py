"""`ExecutorConformance`: the tests that every executor runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.engine.resolve import Resolved, resolve
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.executor import StepOutOfMemory
from vllm_core.interfaces.queries import ExecutorQuery
from vllm_core.interfaces.steps import StepResult
from vllm_core.plugin import Offer, Refusal
from vllm_core.testing.by_hand import ByHand
from vllm_core.testing.executor_end import ExecutorEnd
from vllm_core.testing.executor_steps import (
    PATIENCE,
    Running,
    launched_or_raised,
    result_of,
    shortage,
    started,
    tokens_of,
)
from vllm_core.testing.installed import Installed, InstalledConformance
from vllm_core.testing.lossless import asked, same
from vllm_core.testing.reference import Reference
from vllm_core.testing.speculating import LONGEST, Speculating

__all__ = ["ExecutorConformance"]

STEPS = 12  # that are launched before any result is asked for
ONE = Device(type="cpu")


class ExecutorConformance(ExecutorEnd, InstalledConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    executor       its name, as in --distributed-executor-backend
    architecture   of the model that is served, as in config.json "architectures"; a plugin that serves it must be there
    config         fields of transformers' config for a tiny one
    gains          tensor name with wildcards -> factor on its random values
    settings       further ones of the engine, as arguments of ``LLM``: tensor_parallel_size, ...
    device         platform to run on
    cannot         "out of memory": such a step ends the engine; "one rank" -> why
    """

    kind = "executor"
    hook = "executor"
    subject = "executor"

    executor: ClassVar[str]
    architecture: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    gains: ClassVar[Mapping[str, float]] = {}
    settings: ClassVar[Mapping[str, Any]] = {}
    device: ClassVar[str] = "auto"

    # ---- what tests use

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(cls, tmp_path_factory: pytest.TempPathFactory) -> Speculating:
        """The model, and engines on it."""
        import transformers

        folder = tmp_path_factory.mktemp("executor")
        reference = Reference(getattr(transformers, cls.architecture), cls.config, gains=cls.gains)
        reference.save(folder)
        return Speculating(folder, "", {}, cls.device, reference.vocab_size)

    @pytest.fixture(scope="class")
    @classmethod
    def own(cls) -> Mapping[str, Any]:
        """Settings of an engine on the tested executor."""
        plugin = {Installed(cls.hook, cls.executor).plugin.name: dict(cls.plugin_settings)}
        return {
            "distributed_executor_backend": cls.executor,
            **({"plugin": plugin} if cls.plugin_settings else {}),
            **cls.settings,
        }

    @pytest.fixture
    def make(self, tiny: Speculating, own: Mapping[str, Any]) -> Callable[[], tuple[Any, Resolved]]:
        """``make()``: an executor of the tested kind that has not started, and what it is made of."""

        def made() -> tuple[Any, Resolved]:
            resolved = resolve(tiny.settings(0, **own))
            return resolved.executor_target(resolved.build), resolved

        return made

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, tiny: Speculating) -> list[StepResult]:
        """What steps by hand give in this process, one at a time."""
        resolved = resolve(tiny.settings(0, distributed_executor_backend="in-process"))
        executor = resolved.executor_target(resolved.build)
        with started(executor) as capacity:
            own = Running(executor, ByHand(capacity, LONGEST), tiny.vocab_size)
            rows = own.fresh()
            return [executor.launch(own.hand.plan(rows)).result(PATIENCE) for _ in range(STEPS)]

    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, tiny: Speculating, own: Mapping[str, Any]) -> Iterator[Running]:
        """An executor of the tested kind."""
        resolved = resolve(tiny.settings(0, **own))
        executor = resolved.executor_target(resolved.build)
        with started(executor) as capacity:
            yield Running(executor, ByHand(capacity, LONGEST), tiny.vocab_size)

    # ---- offers

    def test_its_hook_offers_it_by_name_and_is_silent_on_other_names(self, installed: Installed) -> None:
        world = world_of(self.settings)
        offer = installed.answer(ExecutorQuery(name=self.executor, world_size=world, nodes=1, device=ONE))
        assert isinstance(offer, Offer), f"{self.hook} answers {offer!r} to its own name and {world} ranks"
        assert offer.name == self.executor
        other = ExecutorQuery(name="unheard-of-by-anybody", world_size=1, nodes=1, device=ONE)
        assert installed.answer(other) is None, f"{self.hook} answers to another's name"

    def test_sizes_that_it_cannot_do_are_refused_with_a_reason(self, installed: Installed) -> None:
        query = ExecutorQuery(name=self.executor, world_size=4096, nodes=1, device=attrs.evolve(ONE, type="cuda"))
        answer = installed.answer(query)
        if isinstance(answer, Refusal):
            assert answer.reason.strip()
        else:
            assert isinstance(answer, Offer), f"4096 ranks get {answer!r}; a Refusal says why"

    # ---- tokens

    def test_an_engine_gives_the_tokens_of_one_in_this_process(self, tiny: Speculating, own: Mapping[str, Any]) -> None:
        """Greedy and drawn, cut prompts, cached prefixes, requests preempted for want of pages; overlapped."""
        asks = [*asked(tiny, temperature=0.0), *asked(tiny, temperature=0.9, top_p=0.9)]
        caches = resolve(tiny.settings(0, **own)).build.caches
        tight = {**tiny.tight(0, max(len(ask.prompt) for ask in asks) + 40)}
        plain_bytes = resolve(tiny.settings(0)).build.caches.bytes_per_page
        tight["kv_cache_memory"] = tight["kv_cache_memory"] // plain_bytes * caches.bytes_per_page
        ran = tiny.ran(0, asks, **tight, **own)
        assert sum(o.metrics.num_preemptions for o in ran.outputs), "the kit gave the engine too large a cache"
        same(ran, tiny.plain(asks), f"on {self.executor}")

    def test_the_plain_loop_gives_them_too(self, tiny: Speculating, own: Mapping[str, Any]) -> None:
        asks = asked(tiny, temperature=0.0)
        same(tiny.ran(0, asks, async_scheduling=False, **own), tiny.plain(asks), f"on {self.executor}, plain loop")

    def test_it_finds_the_capacity_of_one_in_this_process(self, tiny: Speculating, running: Running) -> None:
        resolved = resolve(tiny.settings(0, distributed_executor_backend="in-process"))
        with started(resolved.executor_target(resolved.build)) as plain:
            pass
        capacity = running.hand.capacity
        for name in ("max_rows", "num_drafts", "vocab_size", "lookahead"):
            assert getattr(capacity, name) == getattr(plain, name), f"Capacity.{name}"
        assert capacity.num_pages > 1
        assert [g.block_size for g in capacity.caches.groups] == [g.block_size for g in plain.caches.groups]
        assert capacity.memory.get("weights", 0) > 0, "Capacity.memory has no bytes of weights"

    # ---- steps

    def test_steps_in_flight_give_what_one_at_a_time_gives(self, running: Running, plain: list[StepResult]) -> None:
        """None is waited for before the last one is launched: `launch` queues, and returns."""
        plans, pending, done_at_once = [], [], 0
        rows = running.fresh()
        for _ in range(STEPS):
            plans.append(running.hand.plan(rows))
            pending.append(running.executor.launch(plans[-1]))
            done_at_once += pending[-1].done()
        assert done_at_once < STEPS, "each step was done when launch() returned: it waits for the device"
        for number, (one, plan, want) in enumerate(zip(pending, plans, plain, strict=True)):
            got = one.result(PATIENCE)
            assert got.step == plan.step, f"step {plan.step} came as step {got.step}"
            assert one.done(), f"step {plan.step} gave its result and is not done()"
            assert tokens_of(got) == tokens_of(want), f"step {number} of those in flight gave other tokens"

    def test_a_result_that_is_not_there_in_time_is_there_later(self, running: Running, plain: list[StepResult]) -> None:
        pending = running.executor.launch(running.hand.plan(running.fresh()))
        with suppress(TimeoutError):  # unless it was that quick
            assert tokens_of(pending.result(0)) == tokens_of(plain[0])
            return
        assert tokens_of(pending.result(PATIENCE)) == tokens_of(plain[0])

    def test_a_step_without_memory_is_lost_and_others_go_on(
        self, tiny: Speculating, make: Any, plain: list[StepResult], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.needs("out of memory")
        executor, resolved = make()
        offer = next(d.offer for d in resolved.selector.decisions if d.hook == "executor")
        if "processes" in offer.capabilities:
            pytest.skip("its steps run in other processes, which the kit cannot make short of memory from here")
        with started(executor) as capacity:
            own = Running(executor, ByHand(capacity, LONGEST), tiny.vocab_size)
            rows = own.fresh()
            first = executor.launch(own.hand.plan(rows)).result(PATIENCE)
            with shortage(monkeypatch, own.hand.step):
                for one in [launched_or_raised(executor, own.hand, rows) for _ in range(3)]:
                    with pytest.raises(StepOutOfMemory):
                        result_of(one)
            for row, tokens in zip(rows, tokens_of(first), strict=True):
                own.hand.again(row, [*row.ids, *tokens])
            for want in plain[1:4]:
                got = executor.launch(own.hand.plan(rows)).result(PATIENCE)
                assert tokens_of(got) == tokens_of(want), "after a step without memory"


def world_of(settings: Mapping[str, Any]) -> int:
    return int(settings.get("tensor_parallel_size", 1)) * int(settings.get("pipeline_parallel_size", 1))
