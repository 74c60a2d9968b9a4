"""The process that compiles needs neither torch nor transformers, and compiles the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vllm_plugin_xgrammar.backend import XGrammar

from vllm_core.engine.grammar_apart import ApartCompiler, compiler_of
from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary
from vllm_core.testing.grammar_cases import CASES
from vllm_core.testing.grammar_vocabularies import vocabularies

TARGET = "vllm_plugin_xgrammar.backend:XGrammar"
SMALL = Vocabulary(size=4, token_bytes=[b"a", b"{", b"}", b""], stop_ids=(3,))
COMPILE = """
import sys
from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary
from vllm_plugin_xgrammar import bare
from vllm_plugin_xgrammar.compiler import XGrammarCompiler
bare.FIRST = (*bare.FIRST, *sys.argv[1:])
compiler = XGrammarCompiler(Vocabulary(size=4, token_bytes=[b"a", b"{", b"}", b""], stop_ids=(3,)), {})
sys.stdout.buffer.write(compiler.export(GrammarSpec(kind="json_object")))
import transformers
print("torch" in sys.modules, transformers.__version__ > "4", file=sys.stderr)
"""


def run(*more):
    done = subprocess.run([sys.executable, "-c", COMPILE, *more], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr.decode().splitlines()


def expected():
    return XGrammar(SMALL, {}).compile(GrammarSpec(kind="json_object"))._compiled.serialize_json().encode()


def test_it_compiles_the_same_without_them_and_leaves_them_to_whoever_wants_them_later():
    compiled, said = run()
    assert compiled == expected()
    assert said[-1] == "False True"  # no torch was imported, and the real transformers can be


def test_where_the_modules_need_more_the_whole_package_is_imported():
    compiled, said = run("xgrammar.matcher")  # needs torch, as any of them might in a later version
    assert compiled == expected()
    assert "imported with all that it brings" in said[0]
    assert said[-1].startswith("True")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process has loaded is told by /proc")
def test_the_process_of_an_engine_has_no_torch_and_what_it_exports_is_what_compiles_here():
    vocabulary = vocabularies()["byte level"]
    here, apart = XGrammar(vocabulary, {}), ApartCompiler(compiler_of(TARGET), vocabulary, {})
    try:
        for title, case in CASES.items():
            exported = apart.export(case.spec, 60.0).decode()
            assert exported == here.compile(case.spec)._compiled.serialize_json(), title
        maps = Path(f"/proc/{apart._process.pid}/maps").read_text()
        assert "xgrammar" in maps
        assert "torch" not in maps
    finally:
        apart.close()
