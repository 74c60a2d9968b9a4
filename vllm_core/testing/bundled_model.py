"""`BundledModelConformance`: the tests that every bundled model runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vllm_core.plugins import load_catalog, read_policy
from vllm_core.plugins.records import Provided
from vllm_core.testing.kit import Conformance
from vllm_core.testing.plugin_module import assert_imports_light

__all__ = ["BundledModelConformance"]

_PATH = """
import json, socket, sys
sys.path[:] = json.loads(sys.argv[1])
def refuse(*_, **__):
    raise OSError("a bundled model's files come with the package; its function must not use the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from vllm_core.plugin import load_target
path = load_target(sys.argv[2])()
again = load_target(sys.argv[2])()
print(json.dumps({"path": path, "again": again, "heavy": sorted({"torch", "transformers"} & set(sys.modules))}))
"""


class BundledModelConformance(Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    model      its name, as users write it in place of a path
    prompt     a text that it continues
    settings   further flags of ``vllm-core complete``, name -> value
    cannot     "files": they are not here, and its function says how to get them -> why
    """

    kind = "bundled-model"
    hook = "bundled_models"
    subject = "model"

    model: ClassVar[str]
    prompt: ClassVar[str] = "Once upon a time"
    settings: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def listed(cls) -> Provided:
        return load_catalog(read_policy({}), import_modules=False).find("bundled_models", cls.model)

    @pytest.fixture(scope="class")
    @classmethod
    def environ(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        """As of a person who has just installed it, without a network."""
        home = tmp_path_factory.mktemp("home")
        homes = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
        return {**os.environ, **homes, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, listed: Provided, environ: Mapping[str, str]) -> dict[str, Any]:
        """What its function gives in a Python of its own."""
        command = [sys.executable, "-c", _PATH, json.dumps(sys.path), listed.entry.target]
        done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=300)
        if "files" in cls.cannot:
            assert "FileNotFoundError" in done.stderr, done.stderr
            pytest.skip(f"{cls.__name__} cannot: files ({cls.cannot['files']})")
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    def test_the_plugin_module_imports_without_torch(self, listed: Provided) -> None:
        catalog = load_catalog(read_policy({}), import_modules=False)
        assert_imports_light(next(p.module for p in catalog.plugins if p.name == listed.plugin))

    def test_it_says_what_it_is(self, listed: Provided) -> None:
        assert listed.entry.summary, "a summary is what `vllm-core plugins show` prints of it"

    def test_its_files_are_found_without_torch_and_without_a_network(self, found: Mapping[str, Any]) -> None:
        path = Path(found["path"])
        assert path.is_absolute()
        assert path.exists()
        assert found["again"] == found["path"], "the second call gives another path"
        assert not found["heavy"], f"finding it imports {', '.join(found['heavy'])}"

    def test_it_continues_a_text_and_does_so_again(self, found: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        flags = [word for name, value in self.settings.items() for word in (name, value)]
        words = ["complete", self.model, self.prompt, "-q", "--max-tokens", "6", "--temperature", "0", *flags]
        texts = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-m", "vllm_core", *words], env=dict(environ), capture_output=True, text=True,
                timeout=600,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            texts.append(done.stdout)
        assert texts[0].strip(), "nothing came"
        assert texts[0] == texts[1], "greedy, it gives another text the second time"
