"""Tiny checkpoints, written once."""

from __future__ import annotations

import pytest

from tests.distributed import pipeline

MODELS = {
    "llama": pipeline.llama,
    "tied llama": lambda: pipeline.llama(tied=True),
    "gemma with windows": pipeline.gemma,
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made = {}
    for name, make in MODELS.items():
        made[name] = tmp_path_factory.mktemp("pipeline") / name.replace(" ", "-")
        make().save_pretrained(made[name])
    return made


@pytest.fixture(scope="session")
def folder(folders):
    return folders["llama"]
