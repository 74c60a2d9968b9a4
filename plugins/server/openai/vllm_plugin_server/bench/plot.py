"""Latency against rate, a panel a metric: an SVG or HTML written here, or a PNG by matplotlib if that is installed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.bench.figures import METRICS

__all__ = ["check_plot", "draw"]

WIDTH, HEIGHT = 420, 260  # pixels of a panel
LEFT, RIGHT, TOP, BOTTOM = 58, 92, 34, 44  # its margins; right of the lines stand their names
COLORS = ("#2f6fb2", "#c4561d", "#3d8a57", "#7a4fa3", "#8a6d1f")
SUFFIXES = (".svg", ".html", ".png")


@attrs.frozen
class Panel:
    title: str
    x: list[float]  # requests a second that were reached
    lines: list[tuple[str, list[float]]]  # name, milliseconds at each x
    notes: list[str]  # of each x


def check_plot(path: str) -> None:
    """Refuse what could not be written, before an hour of measuring."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"--plot {path}: its end must be one of {', '.join(SUFFIXES)}")
    if suffix == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            f"--plot {path}: a PNG needs matplotlib (pip install 'vllm-plugin-server[plot]')\n"
            f"  instead --plot {Path(path).with_suffix('.svg')} needs nothing"
        )


def panels(results: Sequence[Mapping[str, Any]], metrics: Sequence[str], percentiles: Sequence[float]) -> list[Panel]:
    """Of runs that had an answer, in the order of their rates."""
    runs = sorted((r for r in results if r["completed"]), key=lambda r: r["request_throughput"])
    found = []
    for metric in metrics:
        keys = [
            ("median", f"median_{metric}_ms"),
            *((f"p{p:g}", f"p{p:g}_{metric}_ms") for p in percentiles if p != 50),
        ]
        if runs:
            notes = [
                f"asked for {r['request_rate']} requests/s"
                + ("" if r["max_concurrency"] is None else f", at most {r['max_concurrency']} at once")
                for r in runs
            ]
            x = [r["request_throughput"] for r in runs]
            found.append(Panel(METRICS[metric][1], x, [(name, [r[key] for r in runs]) for name, key in keys], notes))
    return found


def draw(path: str, title: str, found: Sequence[Panel]) -> None:
    if not found:
        raise ValueError("there is nothing to plot: no run had an answer")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() == ".png":
        _png(target, title, found)
        return
    svg = _svg(title, found)
    if target.suffix.lower() == ".html":
        svg = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>{svg}</html>\n'
    target.write_text(svg, encoding="utf-8")


def ticks(most: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 to at least ``most``."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


def _svg(title: str, found: Sequence[Panel]) -> str:
    columns = min(2, len(found))
    rows = math.ceil(len(found) / columns)
    width, height = columns * WIDTH, rows * HEIGHT + 40
    drawn = "".join(
        f'<g transform="translate({i % columns * WIDTH},{i // columns * HEIGHT + 40})">{_panel(panel)}</g>'
        for i, panel in enumerate(found)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="#fff"/><text x="16" y="26" font-size="15" font-weight="600">'
        f"{escape(title)}</text>{drawn}</svg>\n"
    )


def _panel(panel: Panel) -> str:
    across, up = ticks(max(panel.x)), ticks(max(v for _, values in panel.lines for v in values))

    def at_x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / across[-1]

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / up[-1]

    parts = [f'<text x="{LEFT}" y="20" font-weight="600">{escape(panel.title)}, ms</text>']
    for value in up:
        y = at_y(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>')
    for value in across:
        parts.append(
            f'<text x="{at_x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" fill="#555">{value:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" fill="#555">requests/s reached</text>')
    ends: list[float] = []  # of names, so that they do not cover each other
    for number, (name, values) in enumerate(panel.lines):
        color = COLORS[number % len(COLORS)]
        points = [(at_x(x), at_y(y)) for x, y in zip(panel.x, values, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        for (x, y), value, reached, note in zip(points, values, panel.x, panel.notes, strict=True):
            said = f"{name} {value:.1f} ms at {reached:.2f} requests/s ({note})"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"><title>{escape(said)}</title></circle>'
            )
        end = points[-1][1] + 4
        while any(abs(end - other) < 14 for other in ends):
            end -= 14
        ends.append(end)
        parts.append(f'<text x="{points[-1][0] + 9:.1f}" y="{end:.1f}" fill="{color}">{name} {values[-1]:.1f}</text>')
    return "".join(parts)


def _png(target: Path, title: str, found: Sequence[Panel]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(4.5 * len(found), 3.6), squeeze=False)
    for axis, panel in zip(axes[0], found, strict=True):
        for (name, values), color in zip(panel.lines, COLORS * len(panel.lines), strict=False):
            axis.plot(panel.x, values, marker="o", label=name, color=color)
        axis.set(title=panel.title, xlabel="requests/s reached", ylabel="ms", xlim=(0, None), ylim=(0, None))
        axis.grid(color="#ddd")
        axis.legend(frameon=False)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
