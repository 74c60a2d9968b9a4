"""Plugins that misbehave while they are imported: each is caught, the rest go on."""

import json
import time

import pytest
from dummies import BACKEND, MODEL, status

from vllm_core.plugins import load_catalog, probing
from vllm_core.plugins.policy import Policy

QUICK = Policy(import_timeout=0.7)
NONSENSE = {
    "models(): return 7": "its models() returned 7, not a list of ModelEntry",
    "models(): return ['x']": "its models() lists 'x', which is no ModelEntry",
    "models(): raise KeyError('k')": "its models() raised KeyError: 'k'",
    "provides(): return [Provides('atention_backend', 'x')]": 'did you mean "attention_backend"',
    "provides(): return [Provides('rope_variant', 'x'), Provides('rope_variant', 'x')]": "lists rope_variant:x twice",
    "atention_backend(query): return None": 'did you mean "attention_backend"',
    "attention_backend(query, speed): return None": "do not fit their specification",
    "settings(): return 'nowhere:Settings'": "its settings nowhere:Settings cannot be imported",
    "settings(): return 'pathlib:Path'": "is no attrs class",
}


def quarantined(catalog, name):
    row = status(catalog, name)
    assert row.state == "quarantined", row
    assert row.remedy
    return row.reason


def test_a_plugin_that_raises_on_import_is_quarantined_and_the_rest_work(site):
    site.install("bad", "HOOK_API = 1\nraise ValueError('no luck')\n")
    site.install("good", MODEL)
    catalog = load_catalog()
    assert quarantined(catalog, "bad") == "importing it raised ValueError: no luck"
    assert status(catalog, "good").state == "active"


def test_a_plugin_that_exits_on_import_is_quarantined(site):
    site.install("quitter", "HOOK_API = 1\nraise SystemExit(0)\n")
    assert "raised SystemExit" in quarantined(load_catalog(), "quitter")


@pytest.mark.parametrize(("code", "reason"), NONSENSE.items())
def test_a_plugin_that_returns_nonsense_is_quarantined_with_the_reason(site, code, reason):
    site.install("odd", f"HOOK_API = 1\nfrom vllm_core.plugin import *\n@hookimpl\ndef {code}\n")
    assert reason in quarantined(load_catalog(), "odd")


def test_hook_implementations_may_not_ask_for_an_order(site):
    site.install(
        "pushy", "HOOK_API = 1\nfrom vllm_core.plugin import *\n@hookimpl(tryfirst=True)\ndef models(): return []\n"
    )
    assert "is marked tryfirst" in quarantined(load_catalog(), "pushy")


def test_a_hang_on_import_is_killed_after_the_timeout_and_the_rest_work(site):
    site.install("aaa", MODEL)
    site.install("hang", "HOOK_API = 1\nimport time\ntime.sleep(5)\n")
    site.install("zzz", MODEL)
    start = time.monotonic()
    catalog = load_catalog(QUICK)
    assert time.monotonic() - start < 4.5
    assert "had not ended after 0.7 s" in quarantined(catalog, "hang")
    assert [status(catalog, name).state for name in ("aaa", "zzz")] == ["active", "active"]


def test_a_plugin_that_kills_its_process_is_quarantined_and_the_rest_work(site):
    site.install("aaa", MODEL)
    site.install("dead", "HOOK_API = 1\nimport os, sys\nprint('farewell', file=sys.stderr, flush=True)\nos._exit(7)\n")
    site.install("shot", "HOOK_API = 1\nimport os\nos.kill(os.getpid(), 11)\n")
    site.install("zzz", MODEL)
    catalog = load_catalog()
    assert quarantined(catalog, "dead") == "importing it ended the process with exit code 7: farewell"
    assert "was killed by SIGSEGV" in quarantined(catalog, "shot")
    assert [status(catalog, name).state for name in ("aaa", "zzz")] == ["active", "active"]


@pytest.mark.parametrize("code", ["import torch", "try:\n    import torch.nn\nexcept ImportError: pass"])
def test_a_plugin_that_imports_torch_is_quarantined_by_file_and_line(site, code):
    module = site.install("heavy", f"HOOK_API = 1\n{code}\n")
    site.install("later", MODEL)
    catalog = load_catalog()
    reason = quarantined(catalog, "heavy")
    assert reason.startswith("importing it imports torch (")
    assert f"{module}.py:" in reason
    assert status(catalog, "later").state == "active"


def test_looking_for_torch_without_importing_it_is_allowed(site):
    site.install("polite", MODEL + "\nimport importlib.util\nassert importlib.util.find_spec('torch')\n")
    assert status(load_catalog(), "polite").state == "active"


def test_what_a_plugin_prints_or_reads_does_not_disturb_the_probe(site):
    site.install("loud", MODEL + "\nimport os, sys\nprint('{}')\nos.write(1, b'x\\n')\nassert sys.stdin.read() == ''\n")
    assert status(load_catalog(import_modules=False), "loud").state == "active"


def count_children(monkeypatch):
    children = []

    class Counted(probing._Child):
        def __init__(self, modules):
            children.append(modules)
            super().__init__(modules)

    monkeypatch.setattr(probing, "_Child", Counted)
    return children


def test_the_second_start_needs_no_child_and_knows_as_much(site, monkeypatch):
    site.install("alpha", BACKEND)
    site.install("bad", "HOOK_API = 1\nraise ValueError\n")
    first = load_catalog(import_modules=False)
    children = count_children(monkeypatch)
    second = load_catalog(import_modules=False)
    assert children == []
    assert second.plugins == first.plugins


def test_a_changed_file_or_version_is_probed_again(site, monkeypatch):
    module = site.install("alpha", MODEL)
    load_catalog(import_modules=False)
    children = count_children(monkeypatch)
    file = site.folder / f"{module}.py"
    file.write_text(file.read_text().replace("alphaForCausalLM", "BetaForCausalLM"))
    assert "BetaForCausalLM" in load_catalog(import_modules=False).models()
    assert children == [[module]]


def test_a_failure_is_tried_again_once_something_was_installed(site, monkeypatch):
    module = site.install("needy", MODEL + "\nimport library_that_comes_later\n")
    assert "library_that_comes_later" in quarantined(load_catalog(import_modules=False), "needy")
    children = count_children(monkeypatch)
    load_catalog(import_modules=False)
    assert children == []
    site.folder.joinpath("library_that_comes_later.py").write_text("")
    site.folder.joinpath("library-1.0.dist-info").mkdir()
    assert status(load_catalog(import_modules=False), "needy").state == "active"
    assert children == [[module]]


def test_a_cached_hang_is_tried_again_on_demand(site, tmp_path):
    site.install(
        "slow", MODEL + f"\nimport os, time\nif not os.path.exists({str(tmp_path / 'awake')!r}): time.sleep(5)\n"
    )
    assert "had not ended" in quarantined(load_catalog(QUICK, import_modules=False), "slow")
    (tmp_path / "awake").touch()
    assert "had not ended" in quarantined(load_catalog(QUICK, import_modules=False), "slow")
    assert status(load_catalog(QUICK, reprobe=True, import_modules=False), "slow").state == "active"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_cache_is_only_slow(site, tmp_path, content):
    site.install("alpha", MODEL)
    load_catalog(import_modules=False)
    file = tmp_path / "cache" / "vllm-core" / "probed-plugins.json"
    kept = json.loads(file.read_text())
    assert kept
    file.write_text(content)
    assert status(load_catalog(import_modules=False), "alpha").state == "active"
    file.write_text(json.dumps({key: {"listings": {"models": [{"nonsense": 1}]}} for key in kept}))
    assert status(load_catalog(import_modules=False), "alpha").state == "active"


def test_a_plugin_that_fails_only_in_this_process_is_quarantined_too(site):
    site.install(
        "moody",
        MODEL + "\nimport sys\nassert 'vllm_core.plugins.hooks' in sys.modules and 'pytest' not in sys.modules\n",
    )
    assert "importing it raised AssertionError" in quarantined(load_catalog(), "moody")
