"""Packages of strangers that do harm, meant or not: as source, for wheels. ``Stranger.says``: what the list tells."""

from __future__ import annotations

from pathlib import Path

import attrs

HEAD = "from vllm_core.plugin import Command, Offer, Provides, Rank, Refusal, hookimpl\nHOOK_API = 1\n"
# Each process that imports it writes what it is.
NOTE = """
import os, sys
with open(os.environ["NOTES"], "a") as notes:
    notes.write(" ".join(sys.orig_argv[1:4]) + "\\n")
"""
BACKEND = """
@hookimpl
def provides(): return [Provides("attention_backend", "{name}", "a \\x1b[31mred\\x07 summary")]
@hookimpl
def attention_backend(query):
"""
# In a process of the engine it answers something else.
CHAMELEON = (
    BACKEND.format(name="chameleon")
    + """
    import os, sys
    TARGET = "vllm_core.layers.reference_attention:ReferenceAttention"
    elsewhere = " ".join(sys.orig_argv)
    if os.environ.get("CHAMELEON", "nobody") in elsewhere:
        return Offer(name="chameleon", target=TARGET, rank=Rank.TUNED)
    return None
"""
)


@attrs.frozen(kw_only=True)
class Stranger:
    source: str
    point: str = ""  # name of its entry point; the distribution's, if empty
    module: str = ""  # that its entry point names; its own, if empty
    says: str = ""  # why it is quarantined; "": it is active
    remedy: str = ""
    requires: tuple[str, ...] = ("vllm-core>=0.1",)


STRANGERS = {
    "slow": Stranger(source=HEAD + "import time\ntime.sleep(0.5)\n" + NOTE),
    "raising": Stranger(
        source="HOOK_API = 1\nraise RuntimeError('\\x1b]0;title\\x07\\x1b[2Jgone ' + 'x' * 100_000)",
        says="importing it raised RuntimeError: \\x1b]0;title\\x07\\x1b[2Jgone xxxxx",
        remedy="python -c 'import stranger_raising' shows where",
    ),
    "wrong-api": Stranger(
        source="HOOK_API = 9",
        says="it is written for hook API 9, this core speaks 1",
        remedy="upgrade vllm-core: pip install -U vllm-core",
    ),
    "needy": Stranger(
        source=HEAD + "import library_nobody_has",
        requires=("vllm-core>=0.1", "library-nobody-has>=2.5,<3", "another-library; extra == 'more'"),
        says="importing it raised ModuleNotFoundError: No module named 'library_nobody_has'",
        remedy='it declares what is not installed: pip install "library-nobody-has<3,>=2.5"',
    ),
    "twin-one": Stranger(
        source=HEAD,
        point="twin",
        says='its name "twin" is also that of twin in stranger-twin-two 1.0',
        remedy='keep one: block = ["stranger-twin-two"] under [plugins] in vllm.toml keeps stranger-twin-one',
    ),
    "twin-two": Stranger(
        source=HEAD,
        point="twin",
        says='its name "twin" is also that of twin in stranger-twin-one 1.0',
        remedy='keep one: block = ["stranger-twin-one"] under [plugins] in vllm.toml keeps stranger-twin-two',
    ),
    "escape": Stranger(
        source=HEAD,
        point="\x1b[2J\x1b]0;title\x07",
        says='its name "\\x1b[2J\\x1b]0;title\\x07" has other characters than a-z, 0-9 and -',
        remedy="report it to stranger-escape 1.0",
    ),
    "path": Stranger(
        source=HEAD,
        point="../../etc/cron.d/x",
        says='its name "../../etc/cron.d/x" has other characters than a-z, 0-9 and -',
        remedy="report it to stranger-path 1.0",
    ),
    "flag": Stranger(
        source=HEAD,
        point="--help",
        says='its name "--help" has other characters than a-z, 0-9 and -',
        remedy="report it to stranger-flag 1.0",
    ),
    "usurper": Stranger(
        source=HEAD,
        point="core",
        says='the name "core" is reserved for vllm-core itself',
        remedy="report it to stranger-usurper 1.0",
    ),
    "insider": Stranger(
        source=HEAD,
        module="vllm_core.builtin",
        says='its module "vllm_core.builtin" is one of vllm-core itself',
        remedy="report it to stranger-insider 1.0",
    ),
    "library": Stranger(source=HEAD, module="json", says="/__init__.py has no literal HOOK_API"),
    # It offers what the core offers under the same names, and better, it says.
    "shadow": Stranger(
        source=HEAD
        + NOTE
        + """
@hookimpl
def provides(): return [Provides("attention_backend", "reference"), Provides("sampler", "reference")]
@hookimpl
def attention_backend(query):
    import os
    if "SHADOW" in os.environ:
        return Offer(name="reference", target="stranger_shadow:Attention", rank=Rank.REFERENCE)
    return Refusal("not now", name="reference")
@hookimpl
def cli_commands(): return [Command("complete", "stranger_shadow:Complete", "mine"),
                            Command("stranger", "stranger_shadow:Complete", "\\x1b[31mmine")]
class Complete:
    def add_arguments(self, parser): pass
    def run(self, args):
        print("the stranger's command")
        return 0
"""
    ),
    "chameleon": Stranger(source=HEAD + CHAMELEON),
}


def write_stranger(folder: Path, name: str, version: str = "1.0") -> Path:
    """The source package ``stranger-NAME`` below ``folder``; returns its path."""
    stranger, module = STRANGERS[name], f"stranger_{name.replace('-', '_')}"
    package = folder / name
    package.mkdir()
    package.joinpath("pyproject.toml").write_text(
        f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "stranger-{name}"
version = "{version}"
dependencies = {list(stranger.requires)!r}
[project.entry-points."vllm_core.plugins"]
{_toml(stranger.point or name)} = "{stranger.module or module}"
[tool.hatch.build.targets.wheel]
bypass-selection = true
only-include = ["{module}.py"]
"""
    )
    package.joinpath(f"{module}.py").write_text(stranger.source + "\n")
    return package


def _toml(text: str) -> str:
    """As TOML's quoted key."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in text) + '"'
