"""The kit's ways to reach a model, for one with a recurrent state: pages full of NaN, batches of all shapes, ranks."""

import sys
from functools import cached_property

import pytest
import torch

from tests.no_need_to_patch.heron_oracle import CONFIG, Heron
from vllm_core.testing.case import Case
from vllm_core.testing.modes import Modes
from vllm_core.testing.rank_modes import SPLITS, RankModes


class Transcription:
    """What a case asks of its reference."""

    def __init__(self, folder):
        self.logits = Heron(folder)

    def prompt(self, tokens, seed=0):
        make = torch.Generator().manual_seed(1000 * seed + tokens)
        return torch.randint(0, CONFIG["vocab_size"], (tokens,), generator=make).tolist()


class HeronCase(Case):
    @cached_property
    def reference(self):
        return Transcription(self.folder)


@pytest.fixture(scope="module")
def case(site, heron_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        for name in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"XDG_{name}_HOME", str(tmp_path_factory.mktemp(name.lower())))
        yield HeronCase(
            name="heron", model_class=Heron, config=CONFIG, folder=heron_folder, tolerance=1e-4, block_size=8
        )
    for name in [name for name in sys.modules if name.startswith("vllm_plugin_heron")]:
        del sys.modules[name]


class TestStates(Modes, RankModes):
    @pytest.fixture
    def cases(self, case):
        return {"base": case}

    @pytest.fixture(params=SPLITS)
    def split(self, request):
        return "base", request.param

    def needs(self, capability):
        """All of it."""
