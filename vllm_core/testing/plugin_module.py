"""What holds of the plugin around a model: it is light, and honest about what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution

import pytest
import torch

from vllm_core.plugins import PluginStatus
from vllm_core.testing.cannot import CannotReport
from vllm_core.testing.case import Case
from vllm_core.testing.documented import pages, undocumented

__all__ = ["CannotReport", "PluginModule", "assert_imports_light"]

_IMPORT = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[2])
importlib.import_module(sys.argv[1])
sys.exit(", ".join(sorted({"torch", "transformers"} & set(sys.modules))) or 0)
"""


def assert_imports_light(module: str) -> None:
    """A plugin's own module imports nothing heavy, in a Python of its own."""
    command = [sys.executable, "-c", _IMPORT, module, json.dumps(sys.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (
        f"importing {module} must not import what is heavy, but it says: {done.stderr.strip()}\n"
        '  instead  name targets by strings, "package.module:Class", and import torch only in those modules'
    )


class PluginModule:
    """Tests of the base variant."""

    def test_the_plugin_module_imports_without_torch(self, base: Case) -> None:
        assert_imports_light(_owner(base).module)

    def test_its_settings_are_documented(self, base: Case) -> None:
        """Each has a help text, and the README of its package names it."""
        owner = _owner(base)
        text = pages(distribution(owner.distribution))
        _, wrong = undocumented(base.served.resolved.selector.catalog, owner, text)
        assert not wrong, f"settings of plugin {owner.label}: {'; '.join(wrong)}"

    def test_forward_never_waits_for_the_device(self, base: Case) -> None:
        if not torch.cuda.is_available() or base.served.runner.device.type != "cuda":
            pytest.skip("needs a CUDA device: on a CPU every operation waits")
        served = base.idle()
        row = served.row(base.prompt(40))
        served.step([(row, 20)])  # what is compiled or allocated once happens here
        for tokens in (19, 1):
            plan = served.plan([(row, tokens)])
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                served.runner.forward_logits(plan)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            served.advance([(row, tokens)])
        served.release(row)


def _owner(case: Case) -> PluginStatus:
    """The plugin that serves the model."""
    selector = case.served.resolved.selector
    owner = next(d.provided.plugin for d in selector.decisions if d.hook in ("model", "models"))
    return next(plugin for plugin in selector.catalog.plugins if plugin.name == owner)
