"""Checks of what a package says about itself: README, license, settings with their meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vllm_core.cli.doctor.finding import Finding
from vllm_core.testing.documented import pages, readme, undocumented

if TYPE_CHECKING:
    from vllm_core.cli.check.subject import Subject

__all__ = ["papers"]

LEAST = 200  # characters of a README that says something


def papers(subject: Subject) -> Iterator[Finding]:
    metadata: Any = subject.installed.metadata  # email.message.Message
    text = readme(subject.installed)
    summary = metadata.get("Summary", "")
    remedy = "" if summary else 'description = "one line" in pyproject.toml; pip and indexes show it'
    yield _finding("summary", "ok" if summary else "warn", summary or "there is none", remedy)
    if len(text) >= LEAST:
        yield _finding("README", "ok", f"{len(text):,} characters in the metadata")
    else:
        says = f"{len(text)} characters in the metadata" if text else "there is none in the metadata"
        yield _finding("README", "fail", says, 'readme = "README.md" in pyproject.toml: what it does, how it is used')
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or () if c.startswith("License")]
    license = metadata.get("License-Expression") or metadata.get("License") or ", ".join(classifiers)
    remedy = "" if license else 'license = "Apache-2.0" (an SPDX expression) in pyproject.toml'
    first = license.strip().splitlines()[0] if license else ""
    yield _finding("license", "ok" if license else "fail", first or "there is none", remedy)
    python = metadata.get("Requires-Python")
    remedy = "" if python else 'requires-python = ">=3.11" in pyproject.toml'
    yield _finding("Python", "ok" if python else "warn", python or "it does not say which", remedy)
    yield from _settings(subject)


def _settings(subject: Subject) -> Iterator[Finding]:
    for plugin in subject.plugins:
        if plugin.state != "active" or "settings" not in plugin.hooks:
            continue
        settings, missing = undocumented(subject.catalog, plugin, pages(subject.installed))
        site = [url for url in subject.installed.metadata.get_all("Project-URL") or () if "doc" in url.lower()]
        if missing and site:
            yield _finding("settings", "warn", "; ".join(missing), f"see that {site[0]} names them")
        elif missing:
            remedy = "help=... of setting(), and a line of the README with its name"
            yield _finding("settings", "fail", "; ".join(missing), remedy)
        elif settings:
            yield _finding("settings", "ok", f"{', '.join(settings)}: each with a help text and in the README")


def _finding(name: str, verdict: str, says: str, remedy: str = "") -> Finding:
    return Finding("package", name, verdict, says, remedy=remedy)  # type: ignore[arg-type]
