"""R15, at the start: every hook x every fault while plugins are imported, listed and asked."""

from __future__ import annotations

import json
import os

import pytest

from vllm_core.hookspecs import ASKED, HOOKS

LISTED = sorted(name for name in ASKED if HOOKS[name].listing)
QUERIED = sorted(name for name in ASKED if not HOOKS[name].listing)
# Each of these ends a process, so that each hook takes one: `make test` has some, `make test-all` the others as well.
ALL = bool(os.environ.get("TEST_ALL"))
ENDING = QUERIED if ALL else ["attention_backend", "sampler"]
SOME = LISTED if ALL else ["cli_commands", "provides"]
REASONS = {
    "raises": "its {hook}() raised OSError: no such device",
    "hangs": "importing it had not ended after 3 s, and was killed",
    "wrong": "its {hook}() returned 7, not ",
    "exits": "importing it ended the process with exit code 3",
    "crashes": "importing it was killed by SIGSEGV",
}
SCRIPT = """
import json, os, sys
from vllm_core.plugins.catalog import load_catalog
from vllm_core.plugins.policy import Policy
policy = Policy(allow=["culprit"], import_timeout=float(sys.argv[1]))
catalog = load_catalog(policy, reprobe=True, import_modules=False)
print(json.dumps({p.name: [p.state, p.reason, p.remedy] for p in catalog.plugins}))
"""


@pytest.mark.parametrize("fault", [*REASONS, "leaks"])
@pytest.mark.parametrize("hook", SOME)
def test_a_listing_that_goes_wrong_is_quarantined_and_the_others_are_there(culprit, hook, fault):
    culprit.folder.joinpath("list.py").write_text(SCRIPT)
    culprit.order.write_text(f"ask:{hook}:{fault}")
    done = culprit.run(culprit.folder / "list.py", 3 if fault == "hangs" else 30)
    assert done.code == 0, done.err
    state, reason, remedy = done.out.pop("culprit")
    if fault == "leaks":
        assert state == "active"  # in a child, which has ended
    else:
        assert state == "quarantined"
        assert reason.startswith(REASONS[fault].format(hook=hook))
        assert remedy
    assert done.out["core"][0] == "active"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raises", "raised OSError: no such device"),
        ("wrong", "returned 7, not Offer, Refusal or None: a bug of the plugin"),
        ("leaks", "offer"),
        ("hangs", 'plugin "culprit" was asked for {hook} and had not answered after 0.2 s.'),
    ],
)
def test_an_answer_that_goes_wrong_is_a_refusal_or_ends_the_start_by_name(culprit, fault, said):
    done = culprit.run("ask.py", fault, *QUERIED, CULPRIT_OFFERS=",".join(QUERIED))
    assert done.code == 0, done.err
    assert {hook: text.startswith(said.format(hook=hook)) for hook, text in done.out.items()} == dict.fromkeys(
        QUERIED, True
    ), json.dumps(done.out, indent=1)


@pytest.mark.parametrize("hook", ENDING)
def test_an_answer_that_ends_the_process_leaves_the_plugins_name(culprit, hook):
    done = culprit.run("ask.py", "exits", hook)
    assert done.code == 3
    said = f"plugin culprit (vllm-plugin-culprit 1.0) was asked for {hook}, and the process was ended with exit code 3"
    assert said in done.err


@pytest.mark.parametrize("hook", ENDING)
def test_an_answer_that_crashes_leaves_the_plugins_file(culprit, hook):
    done = culprit.run("ask.py", "crashes", hook)
    assert done.code == -11
    assert "Fatal Python error: Segmentation fault" in done.err
    assert "vllm_plugin_culprit/fault.py" in done.err
