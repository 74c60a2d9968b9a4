"""Hook specifications: complete, uniform, and pointing at contracts that exist."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import attrs
import pluggy
import pytest

from vllm_core.hookspecs import GROUPS, HOOKS, MODULES
from vllm_core.hookspecs.reading import HEADINGS, read_hook
from vllm_core.interfaces import queries

CORE = Path(import_module("vllm_core").__file__).parent

# The extension points of the design, in its order.
POINTS = [
    "models",
    "model",
    "model_config",
    "model_processor",
    "weight_format",
    "quantization_method",
    "attention_backend",
    "kv_cache_layout",
    "rope_variant",
    "moe_router",
    "expert_kernel",
    "mixer_kernel",
    "op_kernel",
    "draft_proposer",
    "sampler",
    "logits_processor",
    "grammar_backend",
    "tool_parser",
    "reasoning_parser",
    "media_loader",
    "media_processor",
    "executor",
    "kv_connector",
    "http_endpoints",
    "cli_commands",
    "metrics_sink",
    "bundled_models",
    "platform",
    "tokenizer",
    "chat_renderer",
    "scheduler_policy",
    "pooler",
    "collective",
    "all_to_all",
    "adapter_method",
    "adapter_resolver",
    "provides",
    "settings",
]


def function(name):
    return getattr(import_module(HOOKS[name].module), name)


def contract(dotted):
    module, _, attribute = dotted.rpartition(".")
    return getattr(import_module(f"vllm_core.{module}"), attribute)


def test_every_extension_point_has_one_hook():
    assert sorted(HOOKS) == sorted(POINTS)


def test_each_file_specifies_exactly_the_hooks_it_is_listed_with():
    for file, names in GROUPS.items():
        module = import_module(f"vllm_core.hookspecs.{file}")
        marked = {n for n, f in vars(module).items() if inspect.isfunction(f) and hasattr(f, "vllm_core_spec")}
        assert marked == set(names), file


def test_pluggy_takes_every_specification():
    manager = pluggy.PluginManager("vllm_core")
    for module in MODULES:
        manager.add_hookspecs(import_module(module))
    assert set(HOOKS) <= set(vars(manager.hook))


@pytest.mark.parametrize("name", POINTS)
def test_a_docstring_has_the_six_headings_in_order(name):
    specification = read_hook(name)
    assert tuple(specification.sections) == HEADINGS
    assert all(specification.sections.values())
    assert specification.summary.endswith(".")
    assert specification.sections["Since"].startswith("Hook API 1")


def test_a_docstring_without_a_heading_is_noticed(monkeypatch):
    spec = function("sampler")
    monkeypatch.setattr(spec, "__doc__", spec.__doc__.replace("    Choice   ", "             "))
    with pytest.raises(ValueError, match="headings are When, query, Returns, Errors, Since"):
        read_hook("sampler")


@pytest.mark.parametrize("name", POINTS)
def test_a_hook_takes_an_existing_query_and_settings_or_is_a_listing(name):
    specification = read_hook(name)
    arguments = list(inspect.signature(function(name)).parameters)
    if HOOKS[name].listing:
        assert arguments == []
        assert specification.sections["query"] == "none"
    else:
        assert arguments == ["query", "settings"]
        assert attrs.has(getattr(queries, specification.query))


@pytest.mark.parametrize("name", [n for n in POINTS if not HOOKS[n].listing])
def test_the_query_section_names_every_field_of_the_query(name):
    specification = read_hook(name)
    fields = [f.name for f in attrs.fields(getattr(queries, specification.query))]
    assert [f for f in fields if f"``{f}``" not in specification.sections["query"]] == []


def test_every_query_is_asked_by_a_hook():
    asked = {read_hook(name).query for name in POINTS}
    defined = {n for n, c in vars(queries).items() if inspect.isclass(c) and n.endswith("Query")}
    assert defined <= asked


@pytest.mark.parametrize("name", POINTS)
def test_the_contract_of_a_hook_exists_and_is_described(name):
    contracts = read_hook(name).contracts
    assert contracts
    for dotted in contracts:
        assert (contract(dotted).__doc__ or "").strip(), dotted


def test_no_contract_file_is_left_without_a_hook():
    """Each file of interfaces/ is the contract of a hook, or a part that such contracts are made of."""
    parts = {"batch", "cache", "device", "group", "parameter", "plan", "queries", "state", "steps"}
    named = {d.split(".")[1] for n in POINTS for d in read_hook(n).contracts if d.startswith("interfaces.")}
    files = {p.stem for p in (CORE / "interfaces").glob("*.py")} - {"__init__"}
    assert files - parts == named


def test_hooks_and_contracts_import_without_torch():
    code = (
        "import pkgutil, sys\nfrom importlib import import_module\n"
        "for package in ('vllm_core.hookspecs', 'vllm_core.interfaces'):\n"
        "    for found in pkgutil.iter_modules(import_module(package).__path__):\n"
        "        import_module(f'{package}.{found.name}')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
