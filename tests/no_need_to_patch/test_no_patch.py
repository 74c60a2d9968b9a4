"""That nothing is patched: read off the packages' sources, and looked at while all of them run."""

import ast

import pytest

from tests.no_need_to_patch.conftest import NAMES, PACKAGES
from tests.test_house import PUBLIC, imports

SOURCES = sorted(PACKAGES.rglob("vllm_plugin_*/*.py"))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_it_imports_only_what_plugins_may(file):
    wrong = [m for m in imports(file) if m.startswith("vllm_core") and not PUBLIC.fullmatch(m)]
    assert not wrong
    others = [m for m in imports(file) if m.startswith("vllm_plugin") and not m.startswith(file.parent.name)]
    assert not [m for m in others if not m.startswith("vllm_plugin_server.api")]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_it_sets_nothing_that_is_not_its_own(file):
    """Attributes of ``self`` and of tensors just made, items of its own variables; nothing that was imported."""
    tree = ast.parse(file.read_text())
    nodes = list(ast.walk(tree))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    found = []
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            root = ast.unparse(node).split(".")[0].split("[")[0]
            if root in imported or (isinstance(node, ast.Attribute) and root not in ("self", "made")):
                found.append(ast.unparse(node))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in ("setattr", "delattr", "vars", "globals", "importlib.reload") else []
        if isinstance(node, ast.Attribute) and node.attr in ("__dict__", "__code__", "__class__", "modules"):
            found.append(ast.unparse(node))
    assert not found


RUN = """
import importlib, inspect, json, pkgutil, sys
import vllm_core
for found in pkgutil.walk_packages(vllm_core.__path__, "vllm_core."):
    if not found.name.endswith("__main__") and ".testing" not in found.name:
        importlib.import_module(found.name)

def seen():
    kinds = (type, staticmethod, classmethod, property)
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] != "vllm_core":
            continue
        for key, value in vars(module).items():
            if isinstance(value, kinds) or inspect.isroutine(value) or inspect.ismodule(value):
                found[name, key] = id(value)
            if isinstance(value, type) and value.__module__ == name:
                found.update({(name, key, k): id(v) for k, v in vars(value).items()
                              if isinstance(v, kinds) or inspect.isroutine(v)})
    return found

from vllm_core import LLM, SamplingParams
before = seen()
llm = LLM(sys.argv[1], device="stub", dtype="bfloat16", scheduling_policy="deadline", logits_processors=["no-pairs"],
    max_num_seqs=4, attention_backend="tight", speculative_config={"method": "follow", "num_speculative_tokens": 2},
    plugin={"sigma": {"n": 1.5}, "ledger": {"file": "ledger"}})
params = SamplingParams(max_tokens=4, ignore_eos=True, seed=1, extra_args={"no_pairs": True, "deadline_ms": 100})
(output,) = llm.generate(["The quick brown fox"], params, use_tqdm=False)
model = llm.built.executor._runner.model
own = sorted({name.split(".")[0] for name in sys.modules if name.startswith("vllm_plugin_")})
owners = {d.hook: d.provided.owner for d in llm.built.decisions}
llm.shutdown()
after = seen()
print(json.dumps({
    "tokens": len(output.outputs[0].token_ids), "own": own, "owners": owners, "norm": model.norm.norm.__module__,
    "add_norm": model.norm.add_norm.__module__, "looked_at": len(before),
    "changed": sorted(map(str, (key for key in before if after.get(key) != before[key]))),
}))
"""


def test_all_of_them_together_change_no_module_and_no_class_of_the_core(shell, heron_file):
    got = shell.report(RUN, heron_file)
    assert got["tokens"] == 4
    assert set(got["own"]) >= {f"vllm_plugin_{name}" for name in NAMES if name != "nextwords"}
    assert got["looked_at"] > 3000
    assert got["changed"] == []
    assert {hook: got["owners"][hook].split()[0] for hook in WHOSE} == WHOSE
    # One op, on one dtype: the sum with the residual is the core's.
    assert (got["norm"], got["add_norm"]) == ("vllm_plugin_halfnorm.kernel", "vllm_core.ops.norm")
    lines = (shell.folder / "ledger").read_text().splitlines()
    assert [line for line in lines if '"kind": "request"' in line]


WHOSE = {
    "model": "vllm-plugin-heron",
    "weight_format": "vllm-plugin-nest",
    "platform": "vllm-plugin-stub",
    "scheduler_policy": "vllm-plugin-deadline",
    "sampler": "vllm-plugin-sigma",
    "logits_processor": "vllm-plugin-sigma",
    "draft_proposer": "vllm-plugin-sigma",
    "metrics_sink": "vllm-plugin-ledger",
    "attention_backend": "vllm-plugin-tight",
    "kv_cache_layout": "vllm-plugin-tight",
    "op_kernel": "vllm-plugin-halfnorm",
}
