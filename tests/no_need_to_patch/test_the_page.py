"""The layer of docs/no-need-to-patch.md, run in pieces as the engine would."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.runner.test_bound_state import step_of
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.cache import CacheGroup
from vllm_core.runner.bound_state import PagedState

PAGE = Path(__file__).parents[2] / "docs/no-need-to-patch.md"
SIZE, HIDDEN = 8, 5  # tokens between checkpoints, elements


@pytest.fixture
def echo(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    file = tmp_path / "echo.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("echo", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    layer = module.Echo(HIDDEN)
    layer.path = "echo"
    layer.setup(SimpleNamespace(state=lambda path, spec: PagedState(path, spec, ring=2)))
    group = CacheGroup(index=0, spec=layer.state.spec, names=("echo",), block_size=SIZE)
    layer.state.attach(group, torch.full((64, 32), 0xFF, dtype=torch.uint8))
    return layer


def test_it_computes_the_same_in_pieces_behind_drafts_and_from_a_checkpoint(echo):
    x = torch.randn(21, HIDDEN, generator=torch.Generator().manual_seed(0))
    want = x.clone()
    for i in range(1, len(x)):
        want[i] = x[i] + want[i - 1] / 2
    ring, other, checkpoints = [1, 2], [3, 4], [10, 11]

    def run(*parts):
        """(table, tokens before, tokens now) of each sequence, in one step."""
        tables, before, lengths = zip(*parts, strict=True)
        step = step_of(list(before), list(lengths), list(tables))
        batch = Batch(num_tokens=sum(lengths), positions=torch.zeros(1), attention=[step], metadata=[None])
        got = echo(torch.cat([x[b : b + n] for b, n in zip(before, lengths, strict=True)]), batch)
        for part, b, n in zip(got.split(list(lengths)), before, lengths, strict=True):
            torch.testing.assert_close(part, want[b : b + n])

    run(([*ring, *checkpoints], 0, 6), ([*other, 0, 0], 0, 9))
    run(([*ring, *checkpoints], 6, 2), ([*other, 0, 0], 9, 1))
    run(([*ring, *checkpoints], 8, 2))  # a token and its draft
    run(([*ring, *checkpoints], 9, 8))  # the draft was rejected: one token further on, not two
    run(([5, 6, 0, 0], 0, 1), ([10, 10, 0, 0], 8, 3))  # another request begins at the checkpoint after 8 tokens
