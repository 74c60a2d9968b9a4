"""Packages that go wrong, each in its own way: written as source, then built and installed by pip."""

from __future__ import annotations

import attrs

_HEAD = "from vllm_core.plugin import ModelEntry, Offer, Provides, Rank, hookimpl\nHOOK_API = 1\n"
_BACKEND = """
@hookimpl
def provides(): return [Provides("attention_backend", "{name}")]
@hookimpl
def attention_backend(query):
"""


@attrs.frozen(kw_only=True)
class Broken:
    """One distribution ``dummy-NAME`` with one plugin, and what is said about it once it is quarantined."""

    source: str | None  # of its module; None: the module is not in the package
    why: str = ""  # "" if importing it is fine
    remedy: str = ""
    requires: str = "vllm-core>=0.1"
    plugin: str = ""  # entry point, if it is not the distribution's name


BROKEN = {
    "raises": Broken(
        source="HOOK_API = 1\nraise ImportError('libraise.so.13: cannot open shared object file\\nNo such file')",
        why="importing it raised ImportError: libraise.so.13: cannot open shared object file No such file",
        remedy="python -c 'import dummy_raises' shows where",
    ),
    "nonsense": Broken(
        source=_HEAD + "@hookimpl\ndef models(): return 7",
        why="its models() returned 7, not a list of ModelEntry",
        remedy="report it to the plugin's author",
    ),
    "absent": Broken(
        source=None,
        why='its module "dummy_absent" is not there',
        remedy="pip install --force-reinstall dummy-absent 1.0",
    ),
    "future": Broken(
        source="HOOK_API = 2",
        why="it is written for hook API 2, this core speaks 1",
        remedy="upgrade vllm-core: pip install -U vllm-core",
    ),
    "newer": Broken(
        source=_HEAD,
        requires="vllm-core>=9.5",
        why="it asks for vllm-core>=9.5, installed is ",
        remedy='pip install "vllm-core>=9.5", or another release of dummy-newer',
    ),
    "twin-one": Broken(
        source=_HEAD,
        plugin="twin",
        why='its name "twin" is also that of twin in dummy-twin-two 1.0',
        remedy='keep one: block = ["dummy-twin-two"] under [plugins] in vllm.toml keeps dummy-twin-one',
    ),
    "twin-two": Broken(
        source=_HEAD,
        plugin="twin",
        why='its name "twin" is also that of twin in dummy-twin-one 1.0',
        remedy='keep one: block = ["dummy-twin-one"] under [plugins] in vllm.toml keeps dummy-twin-two',
    ),
    "hangs": Broken(
        source="HOOK_API = 1\nimport os, time\nopen(os.environ['TRIES'], 'a').write('x')\ntime.sleep(5)",
        why="importing it had not ended after 2 s, and was killed",
        remedy="report it; --reprobe tries again, import_timeout_s under [plugins] in vllm.toml waits longer",
    ),
    "dies": Broken(
        source="HOOK_API = 1\nimport os, sys\nprint('farewell', file=sys.stderr, flush=True)\nos._exit(3)",
        why="importing it ended the process with exit code 3: farewell",
        remedy="python -c 'import dummy_dies' shows it; report it",
    ),
    "shot": Broken(
        source="HOOK_API = 1\nimport os\nos.kill(os.getpid(), 11)",
        why="importing it was killed by SIGSEGV",
        remedy="python -c 'import dummy_shot' shows it; report it",
    ),
    "heavy": Broken(
        source=_HEAD + "import torch",
        why="importing it imports torch (",
        remedy="import torch where it is used, in the modules that records name as targets",
    ),
    # Fine to import in the probe's child; wrong in an engine, when asked, or when used.
    "moody": Broken(source=_HEAD + "import sys\nif 'vllm_core.engine' in sys.modules: raise OSError('not here')"),
    "hollow": Broken(
        source=_HEAD + "@hookimpl\ndef models(): return [ModelEntry('HollowForCausalLM', 'dummy_no:Hollow')]"
    ),
    "grumpy": Broken(source=_HEAD + _BACKEND.format(name="grumpy") + "    raise OSError('no such device')"),
    "babbling": Broken(source=_HEAD + _BACKEND.format(name="babbling") + "    return 'yes'"),
    "sleepy": Broken(
        source=_HEAD
        + "import os, time\n"
        + _BACKEND.format(name="sleepy")
        + "    time.sleep(60 * ('SLEEP' in os.environ))"
    ),
}
"""Distribution, less "dummy-": what is wrong with it."""

QUARANTINED = {name: broken for name, broken in BROKEN.items() if broken.why}


def write_source(folder, name):
    """The source package of one, below ``folder``; returns its path."""
    broken, module = BROKEN[name], f"dummy_{name.replace('-', '_')}"
    package = folder / name
    package.mkdir()
    package.joinpath("pyproject.toml").write_text(
        f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "dummy-{name}"
version = "1.0"
dependencies = ["{broken.requires}"]
[project.entry-points."vllm_core.plugins"]
{broken.plugin or name} = "{module}"
[tool.hatch.build.targets.wheel]
bypass-selection = true
only-include = ["{module}.py"]
"""
    )
    if broken.source is not None:
        package.joinpath(f"{module}.py").write_text(broken.source + "\n")
    return package
