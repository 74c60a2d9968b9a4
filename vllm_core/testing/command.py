"""`CommandConformance`: the tests that every command runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vllm_core.cli.parser import Parser
from vllm_core.plugin import Command, load_target
from vllm_core.plugins import load_catalog, read_policy
from vllm_core.testing.kit import Conformance
from vllm_core.testing.plugin_module import assert_imports_light

__all__ = ["CommandConformance", "Ran"]

PATIENCE = 60.0  # seconds for words that should be answered at once; what hangs takes longer on any machine
WIDTH = 110  # characters of a line of help
_HEAVY = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from vllm_core.cli import main
code = main(json.loads(sys.argv[2]))
heavy = sorted({"torch", "transformers"} & set(sys.modules))
sys.exit(f"exit code {code}" if code else f"imports {', '.join(heavy)}" if heavy else 0)
"""


class Ran:
    """``vllm-core WORDS`` as a person runs it: exit ``code``, standard ``out`` and ``err``."""

    def __init__(self, words: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "vllm_core", *words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10 * PATIENCE,
        )
        self.words, self.code, self.out, self.err = list(words), done.returncode, done.stdout, done.stderr

    def __repr__(self) -> str:
        return f"vllm-core {' '.join(self.words)}: exit code {self.code}\n{self.out[-1500:]}{self.err[-1500:]}"


class CommandConformance(Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    command    its name, as users write it: "owl", or "bench owl" in a group
    works      name -> words behind it with which it does something and ends with 0
    fails      name -> words with which it ends with 1: asked rightly, it did not work
    wrong      name -> words with which it ends with 2: asked wrongly
    cannot     what one may expect of the command and it does not do -> why
    """

    kind = "command"
    hook = "cli_commands"
    subject = "command"

    command: ClassVar[str]
    works: ClassVar[Mapping[str, Sequence[str]]]
    fails: ClassVar[Mapping[str, Sequence[str]]] = {}
    wrong: ClassVar[Mapping[str, Sequence[str]]] = {}
    environ: ClassVar[Mapping[str, str]] = {}

    def run(self, folder: Path, *words: str) -> Ran:
        return Ran([*self.command.split(), *words], folder, self.environ)

    @pytest.fixture(scope="class")
    @classmethod
    def listed(cls) -> Command:
        return load_catalog(read_policy({}), import_modules=False).find("cli_commands", cls.command).entry

    @pytest.fixture(scope="class")
    @classmethod
    def parser(cls, listed: Command) -> Parser:
        """Its arguments as they are declared."""
        parser = Parser(prog=f"vllm-core {cls.command}")
        load_target(listed.target)().add_arguments(parser)
        return parser

    # ---- help

    def test_the_plugin_module_imports_without_torch(self, listed: Command) -> None:
        found = load_catalog(read_policy({}), import_modules=False)
        owner = found.find("cli_commands", self.command).plugin
        assert_imports_light(next(p.module for p in found.plugins if p.name == owner))

    def test_help_lists_it_with_what_it_does(self, listed: Command, tmp_path: Path) -> None:
        group = self.command.split()[:-1]
        ran = Ran([*group, "--help"], tmp_path, self.environ)
        assert ran.code == 0, ran
        assert listed.summary, f"{self.command} has no summary"
        assert re.search(rf"^  {re.escape(self.command.split()[-1])} +{re.escape(listed.summary)}$", ran.out, re.M), ran

    def test_its_help_needs_no_torch(self, tmp_path: Path) -> None:
        words = [*self.command.split(), "--help"]
        command = [sys.executable, "-c", _HEAVY, json.dumps(sys.path), json.dumps(words)]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **self.environ}, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, (
            f"vllm-core {' '.join(words)}: {done.stderr.strip()}\n  instead import what is heavy in run()"
        )
        assert f"vllm-core {self.command}" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= WIDTH, done.stdout

    def test_every_argument_says_what_it_is_for(self, parser: Parser) -> None:
        bare = [_name(action) for action in parser._actions if not action.help]
        assert not bare, f"no help text: {', '.join(bare)}"

    # ---- asked wrongly

    def test_an_unknown_flag_is_refused_with_the_nearest(self, parser: Parser, tmp_path: Path) -> None:
        flags = [o for action in parser._actions for o in action.option_strings if len(o) > 5 and o.startswith("--")]
        for flag in [f for f in flags if f not in ("--help", "--debug")][:3] or ["--debug"]:
            slip = flag[:-2] + flag[-1] + flag[-2] + "x"
            ran = self.run(tmp_path, slip, "1")
            _refused(ran)
            assert slip in ran.err, ran
            assert flag in ran.err, f"the nearest flag is {flag}\n{ran}"

    def test_numbers_and_choices_are_checked(self, parser: Parser, tmp_path: Path) -> None:
        for action in parser._actions:
            if not action.option_strings or action.nargs == 0:
                continue
            if action.type in (int, float) or action.choices is not None:
                ran = self.run(tmp_path, action.option_strings[-1], "no-such-thing")
                _refused(ran)
                assert action.option_strings[-1] in ran.err, ran

    def test_a_flag_without_its_value_is_refused(self, parser: Parser, tmp_path: Path) -> None:
        for action in parser._actions:
            if action.option_strings and action.nargs is None and not isinstance(action, argparse._HelpAction):
                _refused(self.run(tmp_path, action.option_strings[-1]))
                return
        pytest.skip("no flag of it takes a value")

    def test_a_required_argument_that_lacks_is_named(self, parser: Parser, tmp_path: Path) -> None:
        required = [
            a for a in parser._actions
            if (not a.option_strings and a.nargs not in ("?", "*")) or (a.option_strings and a.required)
        ]  # fmt: skip
        if not required:
            pytest.skip("it has no required argument")
        ran = self.run(tmp_path)
        _refused(ran)
        assert any(_name(action) in ran.err for action in required), ran

    # ---- its examples

    def test_it_works(self, tmp_path: Path) -> None:
        assert self.works, f"{type(self).__name__}.works gives no words with which it does something"
        for name, words in self.works.items():
            ran = self.run(tmp_path, *words)
            assert ran.code == 0, f"{name}: {ran}"
            assert "Traceback" not in ran.err, f"{name}: {ran}"

    def test_what_does_not_work_ends_with_one_and_a_message(self, tmp_path: Path) -> None:
        for name, words in self.fails.items():
            ran = self.run(tmp_path, *words)
            assert ran.code == 1, f"{name}: {ran}"
            _explained(ran, name)

    def test_what_is_asked_wrongly_ends_with_two_and_a_message(self, tmp_path: Path) -> None:
        for name, words in self.wrong.items():
            ran = self.run(tmp_path, *words)
            assert ran.code == 2, f"{name}: {ran}"
            _explained(ran, name)

    def test_a_reader_that_leaves_is_no_accident(self, tmp_path: Path) -> None:
        """``vllm-core ... | head -0``: no traceback, and nothing hangs."""
        name, words = next(iter(self.works.items()))
        process: Any = subprocess.Popen(
            [sys.executable, "-m", "vllm_core", *self.command.split(), *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        process.wait(10 * PATIENCE)
        assert "Traceback" not in err, f"{name}: {err}"
        assert "Exception ignored" not in err, f"{name}: {err}"


def _refused(ran: Ran) -> None:
    __tracebackhide__ = True
    assert ran.code == 2, f"asked wrongly, a command ends with 2\n{ran}"
    _explained(ran)


def _explained(ran: Ran, name: str = "") -> None:
    __tracebackhide__ = True
    assert ran.err.strip(), f"{name}: nothing on standard error says why\n{ran}"
    assert "Traceback" not in ran.err, f"{name}: a traceback is no message; raise ValueError or UsageError\n{ran}"


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
