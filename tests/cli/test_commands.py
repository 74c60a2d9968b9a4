"""Finding commands, and what is said about wrong ones."""

import os
import re
import subprocess
import sys

import pytest

import vllm_core
from vllm_core.plugin import Command
from vllm_core.plugins import catalog, index

COMMAND = """
@hookimpl
def cli_commands():
    return [Command("greet", "{module}_impl:Greet", "say hello")]
"""
GREET = """
class Greet:
    def add_arguments(self, parser):
        parser.add_argument("name")
        parser.add_argument("--times", type=int, default=1)

    def run(self, args):
        if args.name == "nobody":
            raise ValueError("nobody is there")
        if args.name == "bug":
            raise KeyError("x")
        if args.name == "ctrl-c":
            raise KeyboardInterrupt
        print("hello " * args.times + args.name)
        return 3
"""


@pytest.fixture
def greet(install):
    install("greeter", COMMAND, impl=GREET)


def test_help_lists_the_cores_commands_and_those_of_plugins(run, greet):
    code, out, _ = run("--help")
    assert code == 0
    for name in ("complete", "chat", "explain", "plugins", "greet"):
        assert f"\n  {name} " in out
    assert "say hello" in out
    assert run() == run("-h") == run("help") == (0, out, "")


def test_help_names_models_that_are_here(run, install):
    source = "@hookimpl\ndef bundled_models():\n    return [BundledModel('tiny-owl', '{module}:locate')]\n"
    install("owl", source + "def locate(): ...\n")
    assert "models that come with plugins: " in run("--help")[1]
    assert "tiny-owl" in run("--help")[1]


def test_help_works_when_the_configuration_does_not(run, home):
    home.joinpath("vllm.toml").write_text("[plugins]\nblok = []")
    code, out, _ = run("--help")
    assert code == 0
    assert "complete" in out
    assert 'did you mean "block"' in out


def test_a_plugins_command_runs_and_gives_its_exit_code(run, greet):
    assert run("greet", "you", "--times", "2") == (3, "hello hello you\n", "")


def test_an_unknown_command_names_the_nearest(run, greet):
    code, _, err = run("gret")
    assert code == 2
    assert 'there is no command "gret"; did you mean "greet"?' in err
    assert "complete, chat, explain, doctor, plugins, bench, greet" in err


def test_an_unknown_command_that_a_package_offers_names_the_package(run, monkeypatch):
    known = {("command", "x"): ["some-package"]}
    monkeypatch.setattr(index, "lookup", lambda kind, name: known.get((kind, name), []))
    code, _, err = run("x")
    assert code == 2
    assert "install pip install some-package" in " ".join(err.split())


def test_a_command_of_a_disabled_plugin_says_what_disables_it(run, greet, home):
    run("greet", "you")  # seen once, so that what it offers is known
    home.joinpath("vllm.toml").write_text('[plugins]\nblock = ["greeter"]')
    code, _, err = run("greet", "you")
    assert code == 2
    assert "disabled by block in ./vllm.toml" in err


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("nobody", 1, "ValueError: nobody is there\n"),
        ("bug", 1, "KeyError: 'x'\n  more    --debug shows where\n"),
        ("ctrl-c", 130, "interrupted\n"),
    ],
)
def test_what_goes_wrong_is_a_message_and_an_exit_code(run, greet, name, code, said):
    assert run("greet", name) == (code, "", said)


def test_debug_shows_the_traceback(run, greet):
    with pytest.raises(KeyError):
        run("greet", "bug", "--debug")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tims", "2", "you"), 'vllm-core greet: --tims is not known; did you mean "--times"?'),
        (("you", "too"), 'vllm-core greet: "too" is one argument too many'),
        (("you", "--times", "x"), "vllm-core greet: argument --times: it must be a whole number, not 'x'"),
        ((), "vllm-core greet: the following arguments are required: name"),
        (("you", "--plugin.x", "1"), "--plugin.x must look like --plugin.NAME.KEY VALUE"),
    ],
)
def test_wrong_arguments_are_exit_code_2(run, greet, words, said):
    code, _, err = run("greet", *words)
    assert code == 2
    assert said in err


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"vllm-core {vllm_core.__version__}\n", "")


LIGHT = [
    ["--help"],
    ["bench", "throughput", "--help"],
    ["plugins", "list"],
    ["plugins", "--json"],
    ["chat", "--help"],
    ["nonsense"],
]


@pytest.mark.parametrize("words", LIGHT)
def test_light_commands_import_no_torch(words):
    heavy = "{'torch', 'transformers', 'cattrs', 'numpy'} & set(sys.modules)"
    code = f"import sys, vllm_core.cli as c; c.main({words!r}); sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True).returncode == 0


@pytest.mark.parametrize("module", ["vllm_core", "vllm_core.cli"])
def test_it_runs_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"vllm-core {vllm_core.__version__}\n")


def test_a_reader_that_goes_away_is_no_traceback():
    line = f"{sys.executable} -m vllm_core plugins list --json"
    with subprocess.Popen(line.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full, a disk that is always full")
def test_an_output_that_cannot_be_written_is_an_error_and_no_traceback():
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "vllm_core", "--version"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_command_of_vllms_that_is_not_there_says_what_to_use(run):
    code, _, err = run("collect-env")
    assert code == 2
    assert "though vLLM has it" in err
    assert "instead vllm-core doctor" in err


def test_help_is_short_in_usage_and_ends_with_examples(run):
    code, out, _ = run("chat", "--help")
    assert code == 0
    assert out.startswith("usage: vllm-core chat [flags] MODEL [PROMPT]\n")
    assert out.index("examples:\n  vllm-core chat ") > out.index("--prefer JSON")


def test_a_group_of_commands_lists_them_and_refuses_others(run):
    code, out, _ = run("bench")
    assert code == 0
    assert run("bench", "--help") == (0, out, "")
    for name in ("throughput", "latency", "startup", "step"):
        assert f"\n  {name} " in out
    code, _, err = run("bench", "latncy")
    assert code == 2
    assert 'vllm-core bench has no command "latncy"; did you mean "latency"?' in err


JOINS = """
@hookimpl
def cli_commands():
    return [Command("bench greet", "{module}_impl:Greet", "greet fast"), Command("own one", "{module}_impl:Greet", "x")]
"""


def test_a_plugins_command_joins_a_group(run, install):
    install("joins", JOINS, impl=GREET)
    assert run("bench", "greet", "you") == (3, "hello you\n", "")
    out = run("bench", "--help")[1]
    assert "\n  throughput " in out
    assert re.search(r"\n  greet +greet fast\n", out)
    assert "bench greet" not in run("--help")[1]
    assert run("bench", "greet", "--help")[1].startswith("usage: vllm-core bench greet [flags] name\n")
    code, _, err = run("bench", "gret", "you")
    assert code == 2
    assert 'vllm-core bench has no command "gret"; did you mean "greet"?' in err


def test_a_group_may_be_of_plugins_alone(run, install):
    install("joins", JOINS, impl=GREET)
    assert run("own", "one", "you") == (3, "hello you\n", "")
    assert "\n  one  x\n" in run("own")[1]
    assert "\n  own one " in run("--help")[1]


def test_a_disabled_command_of_a_group_says_what_disables_it(run, install, home):
    install("joins", JOINS, impl=GREET)
    run("bench", "greet", "you")
    home.joinpath("vllm.toml").write_text('[plugins]\nblock = ["command:bench greet"]')
    code, out, err = run("bench", "greet", "you")
    assert (code, out) == (2, "")
    assert 'offers it, disabled by block in ./vllm.toml; remove "command:bench greet" there' in err


@pytest.mark.parametrize("name", ["", "a b c", "a  b", " a", "a:b", "a b,c"])
def test_a_commands_name_is_a_name_or_that_of_a_group_before_it(name):
    with pytest.raises(ValueError, match="a group's and a name"):
        Command(name, "a:B")


def test_serve_without_its_package_names_what_to_install(run, monkeypatch):
    found = [plugin for plugin in catalog.discover() if plugin.name != "server"]
    monkeypatch.setattr(catalog, "discover", lambda: found)
    code, _, err = run("serve", "some-model")
    assert code == 2
    assert "install pip install vllm-plugin-server" in " ".join(err.split())
