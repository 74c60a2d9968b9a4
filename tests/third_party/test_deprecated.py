"""An author's plugin implements what goes: the command line says so, and what to do, wherever plugins are shown."""

from __future__ import annotations

import json

import pytest

from tests.third_party.conftest import Shell

SAID = 'hook "tool_parser" is deprecated and goes in vllm-core 9.4: implement reasoning_parser'
# The core of another day, in every process: Python imports this at its start.
TOMORROW = """
import sys
if any("vllm_core" in word for word in sys.orig_argv):
    from vllm_core.hookspecs import parsers
    from vllm_core.hookspecs.marker import HookDeprecation
    said = HookDeprecation('hook "tool_parser"', instead="implement reasoning_parser", goes="9.4")
    parsers.tool_parser.vllm_core_spec["warn_on_impl"] = said
"""
PLUGIN = """
HOOK_API = 1
from vllm_core.plugin import Provides, hookimpl

@hookimpl
def provides(): return [Provides("tool_parser", "elder")]

@hookimpl
def tool_parser(query): return None
"""


@pytest.fixture
def shell(tmp_path, installed):
    site = tmp_path / "site"
    info = site / "dummy_elder-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: dummy-elder\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text("[vllm_core.plugins]\nelder = dummy_elder\n")
    site.joinpath("dummy_elder.py").write_text(PLUGIN)
    site.joinpath("sitecustomize.py").write_text(TOMORROW)
    return Shell(tmp_path, f"{site}:{installed}", tmp_path / "cache")


def test_the_list_the_page_and_json_say_what_goes_and_what_to_do(shell):
    listed, shown = shell("plugins", "list"), shell("plugins", "show", "elder")
    assert (listed.code, shown.code) == (0, 0), listed.err + shown.err
    lines = listed.out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.split()[:1] == ["elder"]]
    (page,) = [line for line in shown.out.splitlines() if line.split()[:1] == ["goes"]]
    assert lines[at + 1].split() == page.split() == ["goes", *SAID.split()]
    (row,) = json.loads(shell("plugins", "show", "elder", "--json").out)
    assert (row["state"], row["deprecated"]) == ("active", [SAID])


def test_a_start_says_it_on_one_line(shell, owl_folder):
    done = shell("explain", owl_folder, "--skip-tokenizer-init")
    assert f"plugin elder (dummy-elder 1.0): {SAID}" in done.err.splitlines()
