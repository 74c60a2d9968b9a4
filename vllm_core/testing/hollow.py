"""An engine without a model: the scheduler, the cache's books and the loops are real, tokens are made of tokens.

What a request gets depends on its own tokens only, so whoever shares the engine with it, and in which order they run,
may not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.core import EngineCore
from vllm_core.engine.intake import Intake
from vllm_core.engine.local import LocalEngine
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache
from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.steps import StepPlan, StepResult

__all__ = ["HollowDevice", "HollowRequest", "expected", "hollow_engine", "run"]

VOCABULARY = 97  # tokens
BLOCK = 4  # tokens a page


def expected(prompt: Sequence[int], count: int) -> list[int]:
    """The tokens that a request must get."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + count:
        tokens.append(_next(tokens))
    return tokens[len(prompt) :]


def _next(tokens: Sequence[int]) -> int:
    digest = hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % VOCABULARY


@attrs.define
class _Row:
    tokens: list[int]
    computed: int


@attrs.frozen
class _Done:
    found: StepResult

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> StepResult:
        return self.found


class HollowDevice:
    """``interfaces.executor.Executor``. It has no pages, only their number: the engine counts them all the same."""

    def __init__(self, pages: int = 256, rows: int = 8) -> None:
        self.pages, self.rows = pages, rows
        self._rows: dict[int, _Row] = {}

    def start(self) -> Capacity:
        spec = FullAttentionCache(num_kv_heads=1, k_dim=4, v_dim=4, dtype="float32")
        groups = (CacheGroup(index=0, spec=spec, names=("a",), block_size=BLOCK),)
        caches = CachePlan(groups=groups, page_bytes=32 * BLOCK, num_tensors=1)
        return Capacity(
            caches=caches, num_pages=self.pages, max_rows=self.rows, num_drafts=0, vocab_size=VOCABULARY
        )  # fmt: skip

    def launch(self, plan: StepPlan) -> _Done:
        for init in plan.inits:
            self._rows[init.row] = _Row(list(init.token_ids), init.num_computed)
        ids = np.full((len(plan.rows), 1), -1, dtype=np.int32)
        for i, number in enumerate(plan.rows):
            row = self._rows[number]
            row.computed += plan.num_tokens[i]
            if plan.samples[i]:
                row.tokens.append(_next(row.tokens))
                ids[i, 0] = row.tokens[-1]
        return _Done(StepResult(step=plan.step, token_ids=ids))

    def stop(self) -> None:
        """Nothing was begun."""


@attrs.frozen(kw_only=True)
class HollowRequest:
    """``arrival`` seconds since the epoch, None: when it comes; ``step`` before which it comes."""

    prompt: tuple[int, ...]
    tokens: int = 8
    priority: int = 0
    arrival: float | None = None
    step: int = 0


def hollow_engine(
    policy: Any = None, *, pages: int = 256, rows: int = 8, budget: int = 16, longest: int = 64, overlapped: bool = True
) -> LocalEngine:
    """``budget``: tokens a step; ``longest``: tokens of a sequence."""
    settings = EngineSettings(max_num_seqs=rows, async_scheduling=overlapped)
    device = HollowDevice(pages, rows)
    capacity = device.start()
    core = EngineCore(settings, capacity, device, max_model_len=longest, max_step_tokens=budget, policy=policy)
    intake = Intake(
        vocab_size=capacity.vocab_size, longest=core.roster.max_len, seed=0, max_logprobs=0, eos_token_ids=(),
        tokenizer=None,
    )  # fmt: skip
    return LocalEngine(intake, core, OutputProcessor(None))


def run(
    engine: LocalEngine, requests: Sequence[HollowRequest], most_steps: int = 5000, after: Callable[[], Any] = lambda: 0
) -> list[RequestOutput]:
    """Last outputs, in the order in which requests ended; each has its place in ``requests`` as its id."""
    done: list[RequestOutput] = []
    waiting = sorted(range(len(requests)), key=lambda i: requests[i].step)
    for step in range(most_steps):
        while waiting and requests[waiting[0]].step <= step:
            number = waiting.pop(0)
            one = requests[number]
            params = SamplingParams(temperature=0.0, max_tokens=one.tokens, ignore_eos=True)
            engine.add_request(
                str(number), list(one.prompt), params, priority=one.priority, arrival_time=one.arrival
            )  # fmt: skip
        if not engine.has_work:
            if not waiting:
                return done
            continue
        done += [output for output in engine.step() if output.finished]
        after()
    raise AssertionError(f"after {most_steps} steps {len(requests) - len(done)} of {len(requests)} requests still run")
