"""Engines on one checkpoint, with a draft proposer and without, and what became of requests in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.build import build_engine
from vllm_core.engine.cache.groups import pages_of_sequence
from vllm_core.engine.local import LocalEngine
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.steps import NULL_PAGE

LONGEST = 96  # tokens of a sequence
ROWS = 8
SMALL_STEP = 24  # tokens, in engines where prompts are cut


@attrs.frozen
class Ask:
    """A request, and the step before which it is aborted."""

    prompt: tuple[int, ...]
    params: SamplingParams
    abort_at: int | None = None


@attrs.define
class Ran:
    """What an engine made of requests."""

    outputs: list[RequestOutput]
    steps: int

    @property
    def tokens(self) -> list[list[int]]:
        return [sample.token_ids for output in self.outputs for sample in output.outputs]

    @property
    def guesses(self) -> int:
        return sum(output.metrics.num_drafts for output in self.outputs)

    @property
    def accepted(self) -> int:
        return sum(output.metrics.num_accepted_drafts for output in self.outputs)


class Speculating:
    """``method`` and ``keys``: of speculative_config, without the number of guesses."""

    def __init__(self, folder: Path, method: str, keys: Mapping[str, Any], device: str, vocab_size: int) -> None:
        self.folder, self.method, self.keys, self.device = folder, method, dict(keys), device
        self.vocab_size = vocab_size
        self._plain: dict[str, Ran] = {}

    @contextmanager
    def engine(self, drafts: int, **settings: Any) -> Iterator[LocalEngine]:
        """With ``drafts`` guesses a step; 0: plain decoding."""
        engine = LocalEngine.of(build_engine(self.settings(drafts, **settings)))
        try:
            yield engine
        finally:
            engine.core.executor.stop()

    def settings(self, drafts: int, **changed: Any) -> EngineSettings:
        speculative = {"method": self.method, "num_speculative_tokens": drafts, **self.keys} if drafts else {}
        usual = {"dtype": "float32", "max_model_len": LONGEST, "max_num_seqs": ROWS, "block_size": 4}
        return EngineSettings(
            model=str(self.folder),
            device=self.device,
            skip_tokenizer_init=True,
            speculative_config=speculative or EngineSettings().speculative_config,
            **{**usual, **changed},
        )

    def plain(self, asks: Sequence[Ask]) -> Ran:
        """Without guesses, in an engine with room for all; remembered."""
        key = repr(asks)
        if key not in self._plain:
            with self.engine(0) as engine:
                self._plain[key] = run(engine, asks)
        return self._plain[key]

    def ran(self, drafts: int, asks: Sequence[Ask], **settings: Any) -> Ran:
        with self.engine(drafts, **settings) as engine:
            ran = run(engine, asks)
            assert_empty(engine)
            return ran

    def tight(self, drafts: int, tokens: int) -> dict[str, Any]:
        """Settings under which prompts are cut and one request of ``tokens`` fits, but not two."""
        with self.engine(drafts) as engine:
            caches = engine.core.capacity.caches
        pages = pages_of_sequence(caches, tokens, step_tokens=2 * SMALL_STEP + drafts, num_drafts=drafts)
        return {
            "max_model_len": tokens,
            "max_num_batched_tokens": SMALL_STEP,
            "kv_cache_memory": (pages * 3 // 2 + 1) * caches.bytes_per_page,
        }


def run(engine: LocalEngine, asks: Sequence[Ask], between: Any = None) -> Ran:
    """All requests together until none is left; ``between(engine)`` is called before each step."""
    done: dict[str, RequestOutput] = {}
    for number, ask in enumerate(asks):
        engine.add_request(str(number), list(ask.prompt), ask.params)
    step = 0
    while engine.has_work:
        for number, ask in enumerate(asks):
            if ask.abort_at == step:
                engine.abort(str(number))
        if between is not None:
            between(engine)
        done.update({output.request_id: output for output in engine.step() if output.finished})
        step += 1
    outputs = [done[str(number)] for number in range(len(asks))]
    failed = [output.error for output in outputs if output.error]
    assert not failed, failed[0]
    return Ran(outputs, step)


def assert_no_page_too_many(engine: LocalEngine) -> None:
    """Every page has its owners, and no request owns more than what it has and two launched steps may write need."""
    core = engine.core
    core.cache.check()
    ahead = 2 * (1 + core.capacity.num_drafts) + core.capacity.lookahead
    for name, seq in core.cache.sequences.items():
        owned = sum(page != NULL_PAGE for table in seq.tables or () for page in table.pages)
        # Windows give up blocks by what a step has told, at the next one: they may hold a step's tokens more.
        most = core.cache.most_pages(len(seq.tokens) + ahead, ahead + 1 + core.capacity.num_drafts)
        assert owned <= most, (
            f"request {name} has {len(seq.tokens)} tokens and owns {owned} cache pages; with guesses of two steps"
            f" it needs {most}: pages of rejected guesses stayed behind"
        )


def assert_empty(engine: LocalEngine) -> None:
    """Nothing runs: every page and every row is free."""
    core = engine.core
    core.cache.check()
    lost = core.cache.pool.num_pages - 1 - core.cache.num_free
    assert not lost, f"{lost} cache pages are still owned after the last request"
    rows = core.capacity.max_rows - len(core.roster.free_rows)
    assert not rows, f"{rows} rows are still taken after the last request"
