"""Packages as pip leaves them in a folder: one that is right, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

README = "Tool calls of owls. " * 20 + "The setting `perch_height` says how high they sit."

INIT = '''
"""Tool calls of owls."""
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1

@hookimpl
def provides():
    return [Provides("tool_parser", "owl", "what owls call")]

@hookimpl
def settings():
    return "vllm_plugin_owl.settings:Settings"

@hookimpl
def tool_parser(query):
    if query.name == "owl":
        return Offer(name="owl", target="vllm_plugin_owl.parser:OwlTools")
'''
SETTINGS = """
import attrs
from vllm_core.config.setting import setting

@attrs.frozen
class Settings:
    perch_height: int = setting(3, help="How high they sit.", unit="metres")
"""
PARSER = """
import re
from vllm_core.text.tools import StreamedToolParser

NAME = re.compile("[a-z_]*")

class OwlTools(StreamedToolParser):
    markers = ("<hoot>", "</hoot>")

    def read(self, text):
        while (yield from text.until(("<hoot>",), self.content)):
            name = yield from text.run(NAME, 64)
            space = yield from text.space()
            if name and (yield from text.peek()) == "{":
                self.call(name)
                yield from self.arguments_object(text)
                yield from text.passes("</hoot>")
            else:
                self.content("<hoot>" + name + space)
"""
CONFORMANCE = """
from vllm_core.testing import Measured, ToolParserConformance

class TestOwl(ToolParserConformance):
    parser = "owl"
    markers = ("<hoot>", "</hoot>")
    cannot = {"whispers": "owls <hoot> & nothing else"}

    def write(self, calls):
        return "".join(f"<hoot>{name} {arguments}</hoot>" for name, arguments in calls)

    @classmethod
    def measure(cls):
        return [Measured("one hoot", 2.5, "times as loud as a wren")]
"""
RIGHT = {"__init__": INIT, "settings": SETTINGS, "parser": PARSER, "conformance": CONFORMANCE}
METADATA = """Metadata-Version: 2.4
Name: vllm-plugin-owl
Version: 0.3
Summary: Owls.
License-Expression: MIT
Requires-Python: >=3.11
Requires-Dist: vllm-core>=0.1
Requires-Dist: attrs
"""


def install(site: Path, files: dict[str, str], metadata: str = METADATA, readme: str = README) -> Path:
    """``files``: module of vllm_plugin_owl -> its source."""
    package, info = site / "vllm_plugin_owl", site / "vllm_plugin_owl-0.3.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    for name, source in files.items():
        package.joinpath(f"{name}.py").write_text(source)
    info.joinpath("METADATA").write_text(f"{metadata}\n{readme}\n")
    info.joinpath("entry_points.txt").write_text("[vllm_core.plugins]\nowl = vllm_plugin_owl\n")
    record = [*(f"vllm_plugin_owl/{name}.py" for name in files), f"{info.name}/METADATA"]
    info.joinpath("RECORD").write_text("".join(f"{line},,\n" for line in record))
    site.parent.joinpath("vllm.toml").write_text('[plugins]\nallow = ["owl"]\n')  # the others take seconds to look at
    return site
