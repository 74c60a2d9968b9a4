"""What is left of an executor when it was stopped: nothing, however it ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vllm_core.engine.resolve import resolve
from vllm_core.interfaces.executor import StepError
from vllm_core.testing.by_hand import ByHand
from vllm_core.testing.executor_steps import PATIENCE, Running, fails, started, use_folder, weights_missing
from vllm_core.testing.speculating import LONGEST, Speculating
from vllm_core.testing.traces import Traces

ENDS = ("at rest", "steps in flight", "a step that fails", "a start that fails", "no start")


class ExecutorEnd:
    """Tests of ``ExecutorConformance``."""

    @pytest.mark.parametrize("end", ENDS)
    def test_stop_leaves_nothing(self, make: Any, warm: None, tiny: Speculating, end: str, quiet: None) -> None:
        """No thread, process, file or shared memory; twice called, or for an executor that was never started."""
        before = Traces.now()
        self._use(make, tiny.vocab_size, end)
        left = before.left(PATIENCE / 2)
        assert not left, f"{end}: stop() left {', '.join(left)}"

    @pytest.fixture(scope="class")
    @classmethod
    def warm(cls, tiny: Speculating, own: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
        """What is made once a process is there: a first executor has come and gone."""
        with pytest.MonkeyPatch.context() as patch:
            use_folder(patch, tmp_path_factory.mktemp("warm"))
            resolved = resolve(tiny.settings(0, **own))
            with started(resolved.executor_target(resolved.build)):
                pass

    @pytest.fixture
    def quiet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder for temporary files that nobody else uses."""
        use_folder(monkeypatch, tmp_path)

    def _use(self, make: Any, vocabulary: int, end: str) -> None:
        executor, resolved = make()
        launched = None
        try:
            if end == "a start that fails":
                with weights_missing(resolved), pytest.raises(Exception, match=r"\w"):
                    executor.start()
            elif end != "no start":
                own = Running(executor, ByHand(executor.start(), LONGEST), vocabulary)
                rows = own.fresh()
                pending = [executor.launch(own.hand.plan(rows)) for _ in range(4)]
                if end != "steps in flight":
                    assert [one.result(PATIENCE).step for one in pending] == [0, 1, 2, 3]
                if end == "a step that fails":
                    fails(executor, own.hand, rows)
                launched = own.hand.plan(rows)
        finally:
            executor.stop()
            executor.stop()  # safe to call twice
        if launched is not None:
            with pytest.raises((StepError, RuntimeError)):
                executor.launch(launched).result(PATIENCE)
            with pytest.raises(RuntimeError):
                executor.start()
