"""Nine packages of strangers, built and installed by pip into a folder of their own, and a tiny model for them."""

import importlib.util
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.no_need_to_patch.heron_oracle import save_heron
from tests.third_party.conftest import Shell, pip_install, probed  # noqa: F401  fixtures

PACKAGES = Path(__file__).with_name("packages")
NAMES = ("heron", "stub", "deadline", "sigma", "halfnorm", "nextwords", "ledger", "nest", "tight")


@pytest.fixture(scope="session")
def site(pip_install):  # noqa: F811
    return pip_install(*(PACKAGES / name for name in NAMES))


@pytest.fixture
def shell(tmp_path, site, probed):  # noqa: F811
    return Shell(tmp_path, site, probed)


@pytest.fixture(scope="session")
def heron_folder(tmp_path_factory):
    return save_heron(tmp_path_factory.mktemp("tiny-heron"))


@pytest.fixture(scope="session")
def heron_file(heron_folder, tmp_path_factory):
    """The same model as a .nest file, which has all of it: configuration, tokenizer and tensors."""
    spec = importlib.util.spec_from_file_location("nest", PACKAGES / "nest/vllm_plugin_nest/checkpoint.py")
    nest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nest)
    file = tmp_path_factory.mktemp("nests") / "tiny-heron.nest"
    config, tokenizer = (
        json.loads((heron_folder / f"{name}.json").read_text()) for name in ("config", "tokenizer_config")
    )
    tensors = load_file(heron_folder / "model.safetensors")
    nest.pack(file, config, tensors, (heron_folder / "tokenizer.json").read_text(), tokenizer)
    return file
