"""Around the engine: order of requests, HTTP, the command line, metrics."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import MetricsQuery, SchedulerQuery
from vllm_core.plugin import Command, Endpoint, Offer, Refusal


@hookspec
def scheduler_policy(query: SchedulerQuery, settings: Any) -> Offer | Refusal | None:
    """Offer an order among waiting requests.

    When     Once per engine, in the process of the scheduler.
    query    ``policy`` as the user named it. ``"fcfs"``, first come first served, and
             ``"priority"``, smaller numbers first, are the core's. What the target is made from has
             the offer's ``options`` as well.
    Returns  ``Offer`` whose target has the contract ``interfaces.scheduling.SchedulerPolicy``: a
             key for each request, the smallest runs first. ``None`` for other names.
    Choice   The policy is always named, so somebody must offer it; two with the same name:
             ``prefer.scheduler_policy``, then an error naming both.
    Errors   An exception ends the start, with the plugin's name and version.
    Since    Hook API 1.
    """
    return None


@hookspec
def http_endpoints() -> list[Endpoint]:  # type: ignore[empty-body]
    """List routes of the HTTP server.

    When     Once per server, before it listens.
    query    none
    Returns  A list of ``plugin.Endpoint``; ``target`` names an
             ``interfaces.endpoint.EndpointFactory``, called once with the server's context
             (``interfaces.endpoint.ServerContext``), which returns the asynchronous handler.
             ``path`` may hold parameters, ``/v1/things/{thing}``; limits, keys, errors and
             request ids are the server's for every route. The plugin's own settings are in the
             context, ``context.plugins[NAME]``.
    Choice   None: all routes are served that ``block = ["endpoint:/path"]`` does not take away.
             The same path and method from two plugins ends the start, naming both;
             ``prefer.http_endpoints`` decides.
    Errors   An exception, or anything but such a list, quarantines the plugin. What a factory
             raises ends the start. What a handler raises is a 500 for that request.
    Since    Hook API 1.
    """


@hookspec
def cli_commands() -> list[Command]:  # type: ignore[empty-body]
    """List sub-commands of ``vllm-core``.

    When     For ``vllm-core --help`` and for a command that the core does not know itself.
             Must be fast and must not import torch.
    query    none
    Returns  A list of ``plugin.Command``; ``target`` names a class with the contract
             ``interfaces.command.CommandLine``, imported only when its command is used. A name
             of two words, ``"bench serve"``, joins the group of the first, here ``vllm-core bench``.
    Choice   None: all commands are there. The core's own names cannot be replaced; the same
             name from two plugins is an error when it is used; ``prefer.cli_commands`` decides.
    Errors   An exception, or anything but such a list, quarantines the plugin.
    Since    Hook API 1.
    """


@hookspec
def metrics_sink(query: MetricsQuery, settings: Any) -> Offer | Refusal | None:
    """Offer a place that the engine's figures are sent to.

    When     Once per engine, in each of its processes; the sink is made in the scheduler's.
    query    ``model`` as the user named it, ``config`` what was chosen for it: ``max_model_len``,
             ``max_num_seqs``, ``max_num_batched_tokens``, ``dtype``. The sink is made with the same
             query, and in its ``options`` those of the offer.
    Returns  ``Offer`` whose target has the contract ``interfaces.metrics.MetricsSink``. ``None``
             if it is not configured.
    Choice   None: every sink that offers gets everything; ranks play no part.
    Errors   An exception counts as ``Refusal``. One while the sink is made ends the start, naming
             it; one while recording is printed once and ends that sink, never the engine.
    Since    Hook API 1.
    """
    return None
