"""What the tests of executors do with one: steps by hand, steps that fail, starts that fail."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from vllm_core.engine.resolve import Resolved
from vllm_core.interfaces.executor import StepError, StepOutOfMemory
from vllm_core.interfaces.steps import StepResult
from vllm_core.testing.by_hand import ByHand, HandRow

__all__ = [
    "PATIENCE", "Running", "fails", "launched_or_raised", "result_of", "shortage", "started", "tokens_of", "use_folder",
    "weights_missing",
]  # fmt: skip

PATIENCE = 60.0  # seconds for what takes a moment; what hangs takes longer on any machine
PROMPTS = (31, 1, 9)  # tokens
SHORTAGE = "out of memory: the kit says so"


@attrs.frozen
class Running:
    """An executor that runs, and its steps."""

    executor: Any
    hand: ByHand
    vocabulary: int

    def fresh(self) -> list[HandRow]:
        """Rows with the kit's prompts, taken anew."""
        if not self.hand.rows:
            for tokens in PROMPTS:
                self.hand.add(prompt_of(tokens, self.vocabulary))
        for row, tokens in zip(self.hand.rows, PROMPTS, strict=True):
            self.hand.again(row, prompt_of(tokens, self.vocabulary))
        return self.hand.rows


def fails(executor: Any, hand: ByHand, rows: list[HandRow]) -> None:
    """A step that cannot be run is named with its cause, and nothing runs after it."""
    wrong = hand.impossible()
    with pytest.raises(StepError) as caught:
        executor.launch(wrong).result(PATIENCE)
    assert caught.value.step == wrong.step, f"step {wrong.step} failed, and {caught.value.step} is named"
    cause = f"rows run from 0 to {hand.capacity.max_rows - 1}"
    assert cause in str(caught.value), f'the cause, "{cause} ...", is lost: {caught.value}'
    with pytest.raises(StepError):
        executor.launch(hand.plan(rows)).result(PATIENCE)


def tokens_of(result: StepResult) -> list[list[int]]:
    return [result.tokens(i) for i in range(len(result.token_ids))]


def use_folder(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("TMPDIR", str(folder))
    patch.setattr(tempfile, "tempdir", None)


@contextmanager
def started(executor: Any) -> Iterator[Any]:
    try:
        yield executor.start()
    finally:
        executor.stop()


@contextmanager
def weights_missing(resolved: Resolved) -> Iterator[None]:
    """The weights are gone, though they were there when choices were made."""
    files = sorted(Path(resolved.settings.model).glob("*.safetensors"))
    assert files
    for file in files:
        file.rename(file.with_suffix(".away"))
    try:
        yield
    finally:
        for file in files:
            file.with_suffix(".away").rename(file)


@contextmanager
def shortage(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """This step finds no memory where it is run, in this process."""
    import torch

    from vllm_core.runner.runner import Runner

    execute = Runner.execute

    def short(self: Runner, plan: Any) -> Any:
        if plan.step == step:
            raise torch.OutOfMemoryError(SHORTAGE)
        return execute(self, plan)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "execute", short)
        yield


def launched_or_raised(executor: Any, hand: ByHand, rows: list[Any]) -> Any:
    """What is pending, or what launch() raised."""
    try:
        return executor.launch(hand.plan(rows))
    except StepOutOfMemory as error:
        return error


def result_of(pending: Any) -> Any:
    if isinstance(pending, StepOutOfMemory):
        raise pending
    return pending.result(PATIENCE)


def prompt_of(tokens: int, vocabulary: int) -> list[int]:
    return [(7 * i * i + 3 * tokens) % vocabulary for i in range(tokens)]
