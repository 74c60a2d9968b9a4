"""``vllm-core explain``, over real choices but without a model. With one: tests/system."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from vllm_core.interfaces.queries import SchedulerQuery
from vllm_core.plugins import Selector, load_catalog, read_policy


@pytest.fixture
def resolve(monkeypatch):
    """``engine.resolve`` that makes one choice, the scheduler's; keeps the settings it was given."""
    module = ModuleType("vllm_core.engine.resolve")

    def resolve(settings):
        module.settings = settings
        selector = Selector(load_catalog(read_policy(settings.plugins)))
        policy = settings.scheduling_policy
        selector.choose("scheduler_policy", SchedulerQuery(policy=policy), policy, asked_by="--scheduling-policy")
        return SimpleNamespace(
            selector=selector,
            lock=SimpleNamespace(digest="abc"),
            checkpoint=SimpleNamespace(tokenizer=None),
            warnings=selector.catalog.notices,
        )

    module.resolve = resolve
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_explain_prints_settings_with_their_sources_and_each_choice(run, resolve, home):
    home.joinpath("vllm.toml").write_text("[engine]\nmax_num_seqs = 2")
    code, out, err = run("explain", "M", "--seed", "3")
    assert (code, err) == (0, "")
    assert "  model         M  (MODEL)\n" in out
    assert "  max_num_seqs  2  ([engine] of ./vllm.toml)\n" in out
    assert "  seed          3  (--seed)\n" in out
    assert re.search(r"\nscheduler_policy  fcfs   vllm-core [\d.]+  asked for \(--scheduling-policy\)\n", out)
    assert "\nscheduler_policy: fcfs\n  asked   policy fcfs\n  chosen  fcfs (vllm-core " in out
    assert "problem: the checkpoint has no tokenizer; --tokenizer names one" in out


def test_what_was_switched_off_or_is_broken_is_told_below_the_choices(run, resolve, install):
    install("raises", "raise RuntimeError('no such library')")
    install("unwanted", "")
    _, out, _ = run("explain", "M", "--plugins-block", "unwanted")
    assert "  plugins.block  unwanted  (--plugins-block)\n" in out
    below = out.partition("installed, and not asked\n")[2]
    assert "(dummy-raises 1.5, entry point raises = " in below
    assert "quarantined: importing it raised RuntimeError: no such library; python -c 'import " in below
    assert 'disabled by block in --plugins-block; remove "unwanted" there' in below


def test_json_has_settings_choices_quarantined_plugins_and_the_digest(run, resolve, install):
    conf = (
        "import attrs\nfrom vllm_core.config.setting import setting\n"
        "@attrs.frozen\nclass C:\n    size: int = setting(1, help='Size.')\n"
    )
    install("sized", "@hookimpl\ndef settings():\n    return '{module}_conf:C'\n", conf=conf)
    install("raises", "raise RuntimeError('no such library')")
    code, out, err = run("explain", "M", "--json", "--plugin.sized.size", "4")
    report = json.loads(out)
    assert code == 0
    assert report["settings"]["plugin.sized.size"] == {"value": "4", "source": "--plugin.sized.size"}
    assert report["choices"][0]["chosen"]["name"] == "fcfs"
    assert "no such library" in report["quarantined"]["raises"]
    assert report["disabled"] == {}
    assert report["digest"] == "abc"
    assert "plugin raises" in err


def test_a_choice_that_cannot_be_made_is_exit_code_1(run, resolve):
    code, out, err = run("explain", "M", "--scheduling-policy", "fcsf")
    assert (code, out) == (1, "")
    assert "fcsf" in err
    assert "Traceback" not in err
