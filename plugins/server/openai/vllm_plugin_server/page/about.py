"""What the page says of a server, taken from what ``explain --json`` prints."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.endpoint import ServerContext

__all__ = ["about_server"]


def about_server(context: ServerContext) -> dict[str, Any]:
    """Model, choices, the start's stages and the plugins with their states."""
    import vllm_core

    report, engine = context.report(), context.engine
    charts = any(one.endpoint.path == "/metrics" for one in context.state.get("routes", ()))
    return {
        "model": engine.settings.model,
        "served_as": list(context.models),
        "version": vllm_core.__version__,
        "max_model_len": engine.ready.longest,
        "started": context.started,
        "metrics": {"prefix": context.settings.metrics_prefix} if charts else None,
        "choices": _choices(report),
        "startup": [{"stage": stage, "seconds": seconds} for stage, seconds in engine.timings.items()],
        "plugins": _plugins(report),
    }


def _choices(report: dict[str, Any]) -> list[dict[str, str]]:
    """A row a part, as the summary of ``explain`` has them: questions with the same outcome share one."""
    rows = {}
    for choice in report.get("choices", ()):
        chosen = choice["chosen"]
        row = {
            "part": choice["hook"].replace("_", " "),
            "name": chosen["name"],
            "distribution": chosen["distribution"],
            "version": chosen["version"],
        }
        rows[tuple(row.values())] = row
    return list(rows.values())


def _plugins(report: dict[str, Any]) -> list[dict[str, str]]:
    """A row a plugin: those that serve this model, those that could serve others, those that are not asked."""
    used = {choice["chosen"]["plugin"] for choice in report.get("choices", ())}
    order = ["quarantined", "used", "active", "disabled"]
    rows = []
    for plugin in report.get("plugins", ()):
        state = "used" if plugin["state"] == "active" and plugin["name"] in used else plugin["state"]
        rows.append({**{key: plugin[key] for key in ("name", "version", "reason", "remedy")}, "state": state})
    return sorted(rows, key=lambda row: (order.index(row["state"]), row["name"]))
