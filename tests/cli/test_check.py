"""``vllm-core plugins check``: what it finds of a package that is right, and of one where all is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from tests.cli.checked.owl import INIT, METADATA, RIGHT, install


def check(folder, *words):
    """As a person runs it in ``folder``, beside whose site/ nothing else is allowed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CORE_", "PYTEST_"))}
    path = os.pathsep.join([str(folder / "site"), *(entry or os.getcwd() for entry in sys.path)])
    homes = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE")}
    done = subprocess.run(
        [sys.executable, "-m", "vllm_core", "plugins", "check", *words],
        cwd=folder,
        env={**kept, **homes, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr, folder=folder)


def verdicts(plain):
    return {found["name"]: found["verdict"] for found in plain["findings"]}


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    folder = tmp_path_factory.mktemp("right")
    install(folder / "site", RIGHT)
    return check(folder, "vllm-plugin-owl", "--json", "owl.json", "--html", "owl.html")


def test_a_plugin_that_is_right_passes(right):
    assert right.code == 0, right.out + right.err
    assert re.search(r"\npassed: [1-9]\d passed, 0 failed, 0 skipped", right.out)
    assert "FAIL" not in right.out


def test_its_report_tells_what_passed_what_it_cannot_and_with_what(right):
    plain = json.loads((right.folder / "owl.json").read_text())
    assert (plain["verdict"], plain["failures"], plain["broken"]) == ("passed", [], {})
    assert set(verdicts(plain).values()) == {"ok"}, plain["findings"]
    assert {"light import", "stable digest", "provides()", "asked by name", "names", "dependencies", "settings"} <= set(
        verdicts(plain)
    )
    (row,) = plain["rows"]
    assert row["cannot"] == {"whispers": "owls <hoot> & nothing else"}
    assert row["measured"] == [{"what": "one hoot", "value": 2.5, "unit": "times as loud as a wren"}]
    assert sum(row["passed"].values()) == plain["counts"]["passed"] > 12
    assert plain["offers"] == [
        {"offer": "tool_parser:owl", "summary": "what owls call", "kit": "tool-parser", "tests": ["TestOwl"]}
    ]
    assert plain["tests"].endswith("vllm_plugin_owl/conformance.py")
    named = {"vllm-core", "vllm-plugin-owl", "HOOK_API", "Python", "torch", "transformers", "device"}
    assert named <= plain["versions"].keys()


class Page(HTMLParser):
    """What a reader of the page needs of its form."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.headings, self.inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside = tag

    def handle_data(self, data):
        if self.inside in ("h1", "h2") and data.strip():
            self.headings.append(data.strip())


def test_its_page_fetches_nothing_and_can_be_read_aloud(right):
    text = (right.folder / "owl.html").read_text()
    page = Page(text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "action")]
    assert "default-src 'none'" in text
    assert ("lang", "en") in page.attributes
    assert page.headings[0] == "vllm-plugin-owl"
    assert {"The package", "Conformance", "What it cannot do", "Figures"} <= set(page.headings)
    assert page.tags.count("table") == page.tags.count("caption") == page.attributes.count(("role", "region"))
    assert {value for name, value in page.attributes if name == "scope"} == {"row", "col"}
    assert "owls &lt;hoot&gt; &amp; nothing else" in text
    assert "2.5 times as loud as a wren" in text


WRONG = {
    "__init__": INIT.replace("HOOK_API = 1", "HOOK_API = int('1')"),
    "conformance": "from vllm_core.testing import ToolParserConformance\nimport nowhere_at_all\n",
}


def test_a_plugin_that_is_not_used_fails_with_its_reason(tmp_path):
    install(tmp_path / "site", WRONG, METADATA.replace("License-Expression: MIT\n", ""), "")
    done = check(tmp_path, "owl", "--json", "-")
    plain = json.loads(done.out)
    assert (done.code, plain["verdict"]) == (1, "failed")
    found = verdicts(plain)
    assert [found[name] for name in ("entry point owl", "HOOK_API", "README", "license")] == ["fail"] * 4
    assert any("nowhere_at_all" in why for why in plain["broken"].values())
    assert any("no literal HOOK_API" in one for one in plain["failures"])


FAULTS = '''
"""Tool calls of owls, and much that is wrong."""
import os
import numpy.fft
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1
if os.environ.get("UNHEARD_OF"):
    import unheard_of_module

@hookimpl
def provides():
    return [Provides("tool_parser", name) for name in {"owl", "hawk", "none", "kite"}]

@hookimpl
def settings():
    return "vllm_plugin_owl.settings:Settings"

@hookimpl
def tool_parser(query):
    return Offer(name="owl", target="vllm_plugin_owl.parser:OwlTools") if query.name == "owl" else None

@hookimpl
def reasoning_parser(query):
    return None
'''


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    silent = RIGHT["settings"].replace("How high they sit.", "")
    install(folder / "site", {**RIGHT, "__init__": FAULTS, "settings": silent, "conformance": ""}, readme="x" * 300)
    folder.joinpath("site", "tests.py").write_text("")
    with folder.joinpath("site", "vllm_plugin_owl-0.3.dist-info", "RECORD").open("a") as record:
        record.write("tests.py,,\n")
    done = check(folder, "vllm-plugin-owl", "--json", "-")
    plain = json.loads(done.out)
    assert (done.code, plain["verdict"]) == (1, "failed")
    return plain


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("stable digest", "different listings"),
        ("provides()", "lists nothing for reasoning_parser"),
        ("tool_parser:hawk", "answers None"),
        ("tool_parser:none", "the core has an offer of this name"),
        ("dependencies", r"not declared: unheard_of_module \(in __init__.py\)"),
        ("modules", "installs tests at the top level"),
        ("settings", "perch_height has no help text; the README does not name perch_height"),
    ],
)
def test_a_fault_of_the_package_is_named(faulty, name, says):
    found = [f["says"] for f in faulty["findings"] if f["name"] == name and f["verdict"] == "fail"]
    assert any(re.search(says, one) for one in found), found
    assert any(re.search(says, failure) for failure in faulty["failures"])


def test_a_plugin_with_a_kit_and_without_a_test_of_it_fails(faulty):
    assert any("has no class of a conformance kit, though there is one for: " in one for one in faulty["failures"])
    assert faulty["rows"] == []


def test_a_file_that_is_no_plugin_and_a_name_that_nobody_has_are_told_apart(tmp_path):
    done = check(tmp_path, "pytest")
    assert (done.code, "is installed, and is no plugin" in done.err) == (1, True), done.err
    done = check(tmp_path, "vllm-plugin-hermes-tool")
    assert done.code == 1
    assert 'did you mean "vllm-plugin-hermes-tools"?' in done.err
