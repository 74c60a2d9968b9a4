"""The kinds of plugin_template/, and packages of strangers that were begun with it and finished."""

from __future__ import annotations

from tests.packages import ROOT

TEMPLATE = ROOT / "plugin_template"
KINDS = sorted(file.parent.name for file in TEMPLATE.glob("*/kind.toml"))
EXAMPLES = {"olmo2": ROOT / "tests" / "third_party" / "packages" / "olmo2"}
"""Name of the plugin -> its package."""
