"""Hooks and arguments that go: whoever implements them is told, by name, what to do and until when."""

import warnings

import pytest
from dummies import BACKEND, MODEL, Site, status

from vllm_core.hookspecs import attention, parsers
from vllm_core.hookspecs.marker import HookDeprecation
from vllm_core.hookspecs.reading import read_hook
from vllm_core.plugins import checks, load_catalog

HOOK = 'hook "tool_parser" is deprecated and goes in vllm-core 9.4: implement reasoning_parser'
ARGUMENT = 'argument "settings" of hook "attention_backend" is deprecated and goes in vllm-core 9.5: read query.options'
# The core of another day, in every process: Python imports this at its start.
TOMORROW = """
import sys
if any("vllm_core" in word for word in sys.orig_argv):
    from vllm_core.hookspecs import attention, parsers
    from vllm_core.hookspecs.marker import HookDeprecation
    parsers.tool_parser.vllm_core_spec["warn_on_impl"] = HookDeprecation(
        'hook "tool_parser"', instead="implement reasoning_parser", goes="9.4")
    attention.attention_backend.vllm_core_spec["warn_on_impl_args"] = {"settings": HookDeprecation(
        'argument "settings" of hook "attention_backend"', instead="read query.options", goes="9.5")}
"""
PARSER = """
HOOK_API = 1
from vllm_core.plugin import Offer, Provides, hookimpl

@hookimpl
def provides():
    return [Provides("tool_parser", "old")]

@hookimpl
def tool_parser(query):
    return None
"""


@pytest.fixture
def tomorrow(site: Site, monkeypatch):
    """Here as well as in processes that are started."""
    site.folder.joinpath("sitecustomize.py").write_text(TOMORROW)
    hook = HookDeprecation('hook "tool_parser"', instead="implement reasoning_parser", goes="9.4")
    argument = HookDeprecation(
        'argument "settings" of hook "attention_backend"', instead="read query.options", goes="9.5"
    )
    monkeypatch.setitem(parsers.tool_parser.vllm_core_spec, "warn_on_impl", hook)
    monkeypatch.setitem(attention.attention_backend.vllm_core_spec, "warn_on_impl_args", {"settings": argument})
    return site


def test_a_deprecated_hook_is_told_with_the_plugins_name_and_goes_on_working(tomorrow):
    tomorrow.install("old", PARSER)
    tomorrow.install("new", MODEL)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        catalog = load_catalog()
    row = status(catalog, "old")
    assert (row.state, row.deprecated, status(catalog, "new").deprecated) == ("active", (HOOK,), ())
    assert f"plugin old (dummy-old 1.0): {HOOK}" in catalog.notices
    (said,) = [w for w in caught if w.filename == row.file]
    assert (said.category, str(said.message)) == (DeprecationWarning, f"plugin old (dummy-old 1.0): {HOOK}")
    assert "old" in [plugin.name for plugin, _ in catalog.implementations("tool_parser")]


def test_a_deprecated_argument_is_told_only_to_those_who_take_it(tomorrow):
    tomorrow.install("modest", BACKEND)
    tomorrow.install("greedy", BACKEND.replace("(query)", "(query, settings)"))
    catalog = load_catalog(import_modules=False)
    assert status(catalog, "greedy").deprecated == (ARGUMENT,)
    assert status(catalog, "modest").deprecated == ()
    assert load_catalog(import_modules=False).plugins == catalog.plugins  # from the cache


def test_the_documentation_names_it(tomorrow):
    from vllm_core.config.docs import hooks_page

    assert [str(said) for said in read_hook("tool_parser").deprecated] == [HOOK]
    assert f"- **Deprecated** {HOOK}." in hooks_page()


def test_a_plugin_for_an_older_hook_api_than_the_core_speaks_is_quarantined(site, monkeypatch):
    site.install("elder", MODEL)
    monkeypatch.setattr(checks, "HOOK_API", 3)
    monkeypatch.setattr(checks, "OLDEST_HOOK_API", 2)
    row = status(load_catalog(import_modules=False), "elder")
    assert row.reason == "it is written for hook API 1, the oldest that this core speaks is 2"
    assert row.remedy == "upgrade it: pip install -U dummy-elder"
