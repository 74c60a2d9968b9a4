"""docs/new-plugin.md, and the code in it."""

from __future__ import annotations

import re

from tests.packages import ROOT

PAGE = ROOT.joinpath("docs", "new-plugin.md").read_text(encoding="utf-8")


def code(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def section(title):
    """Commands in the part of the page under a heading."""
    part = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [line for block in re.findall(r"```bash\n(.*?)```", part, re.DOTALL) for line in block.splitlines()]
