"""What a plugin says about itself."""

from __future__ import annotations

from vllm_core.hookspecs.marker import hookspec
from vllm_core.plugin import Provides


@hookspec
def provides() -> list[Provides]:  # type: ignore[empty-body]
    """List what the plugin offers, so that it can be shown without asking each hook.

    When     Whenever plugins are listed (``vllm-core plugins list``), and when an engine is
             built. Must be fast: no import beyond the standard library and vllm_core.plugin.
    query    none
    Returns  A list of ``plugin.Provides``: ``kind`` is the name of a hook of this package,
             ``name`` what users write in a flag or a configuration file, ``summary`` one
             line without a full stop. Every ``Offer`` of the plugin must be listed: one that
             is not is refused, since nobody could have blocked it. Models, bundled models,
             commands and endpoints have listings of their own.
    Choice   None: all lists are shown. Two plugins may offer the same name; the hook named
             by ``kind`` decides between them when it is asked.
    Errors   An exception, or anything but a list of ``Provides``, quarantines the plugin.
    Since    Hook API 1.
    """


@hookspec
def settings() -> str | None:
    """Name the class of the plugin's own settings.

    When     When the plugin is probed, whenever plugins are listed, and once per engine, before
             the first query and before any weight is read. Must not import torch.
    query    none
    Returns  ``"module:Class"`` of an attrs class whose fields are all declared with
             ``config.setting.setting``; every field has a default. Values come from the table
             ``[plugin.NAME]`` of vllm.toml and from ``--plugin.NAME.KEY``, where NAME is the
             name of the entry point. ``None``: the plugin has no settings. The contract is
             ``interfaces.plugin_settings.PluginSettings``. Every hook with a query may declare
             a second argument ``settings``: the instance, to be put into ``Offer.options`` as
             far as the target needs it.
    Choice   None: each plugin has its own table.
    Errors   An exception or a target that is no such class quarantines the plugin. A value
             the class refuses ends the start, naming the key and where it stood.
    Since    Hook API 1.
    """
    return None
