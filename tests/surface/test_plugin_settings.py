"""Plugins' own settings, held against what each plugin declares."""

import attrs
import pytest

from vllm_core.config.convert import Given
from vllm_core.config.errors import SettingError
from vllm_core.config.plugins import plugin_settings
from vllm_core.config.setting import setting
from vllm_core.plugin import Offer, hookimpl
from vllm_core.plugins.ask import ask
from vllm_core.plugins.catalog import Catalog
from vllm_core.plugins.decision import Question
from vllm_core.plugins.policy import Policy
from vllm_core.plugins.records import Offering, PluginStatus


@attrs.frozen(kw_only=True)
class Workspace:
    workspace_mib: int = setting(128, help="Room for partial results.", unit="MiB", low=1)
    mode: str = setting("auto", help="How.", choices=("auto", "split"))


def catalog(**states):
    """``fast`` has settings, ``plain`` has none; states as given, else active."""
    rows = [
        PluginStatus(
            name=name,
            distribution=f"dist-{name}",
            version="1.2",
            module=__name__,
            state=states.get(name, "active"),
            provides=(Offering("sampler", name),),
        )
        for name in ("fast", "plain")
    ]
    return Catalog(rows, {"fast": {"settings": [f"{__name__}:Workspace"]}}, Policy())


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """So that "module:Class" finds this file, which pytest may import under another name."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this())


def _this():
    import types

    module = types.ModuleType(__name__)
    vars(module).update(globals())
    return module


def refused(values, **states):
    with pytest.raises(SettingError) as error:
        plugin_settings(catalog(**states), values)
    return str(error.value)


def test_every_active_plugin_with_settings_gets_an_instance():
    assert plugin_settings(catalog(), {}) == {"fast": Workspace()}
    given = {"workspace_mib": Given("256", "--plugin.fast.workspace-mib", text=True), "mode": "split"}
    assert plugin_settings(catalog(), {"fast": given}) == {"fast": Workspace(workspace_mib=256, mode="split")}


def test_an_unknown_plugin_names_the_nearest():
    message = refused({"fsat": {"mode": Given("auto", "[plugin.fsat] of ./vllm.toml")}})
    assert 'no plugin "fsat" is installed; did you mean "fast"?' in message
    assert "[plugin.fsat] of ./vllm.toml" in message


def test_an_unknown_key_names_the_nearest():
    message = refused({"fast": {"workspace": Given("1", "--plugin.fast.workspace", text=True)}})
    assert '"workspace" is not a setting of plugin "fast"; did you mean "workspace_mib"?' in message
    assert "--plugin.fast.workspace" in message


def test_a_wrong_value_names_the_plugin_the_key_and_the_source():
    message = refused({"fast": {"workspace_mib": 0}})
    assert 'plugin "fast": workspace_mib must be at least 1 MiB, not 0' in message
    assert 'argument plugin["fast"]["workspace_mib"]' in message


def test_settings_for_a_plugin_that_has_none_are_refused():
    assert 'plugin "plain" has no settings\n  by      dist-plain 1.2' in refused({"plain": {"x": 1}})


@pytest.mark.parametrize("state", ["disabled", "quarantined"])
def test_settings_of_a_plugin_that_is_off_wait_for_it(state):
    """Turning a plugin off is one line; its table need not go too."""
    assert plugin_settings(catalog(fast=state), {"fast": {"workspace_mib": 1, "nonsense": 2}}) == {}


def test_a_hook_that_declares_settings_is_given_its_plugins_own():
    found = catalog()
    found.settings = {"fast": Workspace(workspace_mib=7)}
    seen = {}

    class Fast:
        @hookimpl
        def sampler(self, query, settings):
            seen["fast"] = settings
            return Offer(name="fast", target="m:T", options={"mib": settings.workspace_mib})

    class Plain:
        @hookimpl
        def sampler(self, settings):
            seen["plain"] = settings

    from vllm_core.plugins.hooks import Hooks

    found._hooks = Hooks()
    for row, plugin in zip(found.plugins, (Fast(), Plain()), strict=True):
        found._hooks._manager.register(plugin, name=row.name)
        found._hooks._status[row.name] = row
    answers = ask(found, Question("sampler", None))
    assert seen == {"fast": Workspace(workspace_mib=7), "plain": None}
    assert [a.offer.options["mib"] for a in answers if a.offer] == [7]
