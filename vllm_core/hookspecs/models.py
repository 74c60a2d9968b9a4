"""Models: what they are, where they come from, what they read."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import ModelConfigQuery, ModelProcessorQuery, ModelQuery
from vllm_core.plugin import BundledModel, ModelEntry, Offer, Refusal


@hookspec
def models() -> list[ModelEntry]:  # type: ignore[empty-body]
    """List the architectures this plugin serves.

    When     Whenever plugins are listed and once per engine. Must not import torch.
    query    none
    Returns  A list of ``plugin.ModelEntry``. ``architecture`` is the string in config.json
             "architectures"; ``target`` names a class with the surface of
             ``interfaces.model.Model``; ``needs`` lists features the platform must have.
    Choice   An architecture is looked up in the order of config.json "architectures". If two
             plugins list the same one, ``prefer.models`` decides; without it the start fails,
             naming both. Listed architectures go before offers of ``model``.
    Errors   An exception, or anything but a list of ``ModelEntry``, quarantines the plugin.
             A target that cannot be imported fails the start of an engine that needs it.
    Since    Hook API 1.
    """


@hookspec
def model(query: ModelQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to serve a model that no plugin lists, from its configuration alone.

    When     Once per engine, in the parent process, if ``models`` of no plugin lists one of
             the architectures. For generic implementations, which cannot list their models.
    query    ``architectures`` and ``config`` as in config.json; ``device`` the facts about
             the device it will run on.
    Returns  ``Offer`` whose target has the surface of ``interfaces.model.Model``;
             ``Refusal(reason)`` when the architecture is known and cannot be served;
             ``None`` when it means nothing to this plugin.
    Choice   The highest rank wins; within a rank ``prefer.model``, then an error naming both.
    Errors   An exception counts as ``Refusal``, and is shown when nobody offers.
    Since    Hook API 1.
    """
    return None


@hookspec
def model_config(query: ModelConfigQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to read a model's configuration where config.json alone does not do.

    When     Once per engine, before ``models``: when the checkpoint has no config.json, or
             one whose "model_type" transformers does not know.
    query    ``path`` of the checkpoint, ``files`` in it (relative names, sorted), and
             ``model_type`` as in config.json, "" if there is none.
    Returns  ``Offer`` whose target is an ``interfaces.model_config.ModelConfigReader``, a
             function from the path to the content of a config.json; ``None`` for files this
             plugin does not know.
    Choice   The highest rank wins; within a rank ``prefer.model_config``, then an error.
    Errors   An exception counts as ``Refusal``. What the reader raises ends the start, with
             the path and the plugin's name.
    Since    Hook API 1.
    """
    return None


@hookspec
def model_processor(query: ModelProcessorQuery, settings: Any) -> Offer | Refusal | None:
    """Offer the step that turns a prompt with media into tokens with placeholders.

    When     Once per engine of a model that takes media, in the process that renders prompts.
    query    ``architecture``, its ``config``, the ``modalities`` in use and the ``path`` of
             the checkpoint (for preprocessor_config.json and the like).
    Returns  ``Offer`` whose target has the contract ``interfaces.processor.ModelProcessor``:
             it finds or inserts the placeholders of each item, expands them to as many tokens
             as the item has embeddings, and gives the positions where they differ from
             0, 1, 2, ... ``None`` for other architectures.
    Choice   The plugin that serves the model goes before all others; then the highest rank,
             ``prefer.model_processor``, and an error.
    Errors   An exception counts as ``Refusal``; an engine asked for media then fails to start.
             An exception while a prompt is processed belongs to that request.
    Since    Hook API 1.
    """
    return None


@hookspec
def bundled_models() -> list[BundledModel]:  # type: ignore[empty-body]
    """List models whose files come with an installed package.

    When     Whenever a model is named that is no folder or file, and when plugins are listed.
    query    none
    Returns  A list of ``plugin.BundledModel``. ``target`` names an
             ``interfaces.bundled.BundledPath``: a function without arguments that returns
             the path of the checkpoint, or raises ``FileNotFoundError`` saying how to get it;
             then ``hub_id`` is downloaded.
    Choice   By exact name. Two plugins with the same name: ``prefer.bundled_models`` decides,
             else an error naming both.
    Errors   An exception, or anything but such a list, quarantines the plugin.
    Since    Hook API 1.
    """
