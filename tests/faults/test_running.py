"""R15, in a running engine: what `subjects` says becomes of each fault is what becomes of it.

`make test` has some, `make test-all` all.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.faults.subjects import SUBJECTS
from tests.faults.table import PAGE, page
from tests.third_party.owl_oracle import save_owl
from vllm_core.hookspecs import ASKED, HOOKS

ALL = bool(os.environ.get("TEST_ALL"))
CHOSEN = (
    {place: list(subject.becomes) for place, subject in SUBJECTS.items()} if ALL else {"sampler": ["raises", "hangs"]}
)
NAME = "vllm-plugin-culprit 1.0"
# Used up when an engine has been built; `test_asked` has them.
AT_THE_START = {
    "bundled_models", "collective", "executor", "kv_cache_layout", "model", "platform", "quantization_method",
    "rope_variant", "weight_format",
}  # fmt: skip
# In the server's process, by its tests: what a handler raises is a 500 for that request.
OF_THE_SERVER = {"http_endpoints"}
LISTINGS = {name for name in ASKED if HOOKS[name].listing}


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    return save_owl(tmp_path_factory.mktemp("tiny-owl"))


@pytest.mark.parametrize("place", CHOSEN)
def test_what_becomes_of_a_fault_beside_running_requests(culprit, owl, place):
    subject = SUBJECTS[place]
    faults = CHOSEN[place]
    words = (owl, place, ",".join(faults), json.dumps(subject.settings))
    done = culprit.run("engine.py", *words, seconds=400, CULPRIT_OFFERS=subject.hook)
    found = done.out or {}
    for fault in faults:
        what = subject.becomes[fault]
        if what == "dies":
            assert fault not in found
            assert done.code == 3
            continue
        assert fault in found, f"{fault}: exit code {done.code}\n{done.err[-3000:]}"
        check(what, found[fault], subject.named, f"{place}, {fault}: {json.dumps(found[fault])}\n{done.err[-2000:]}")
    assert done.code == (3 if "dies" in subject.becomes.values() and "exits" in faults else 0)


def check(what, got, named, shown):
    assert (got["before"], got["after"]) == ("ok", "ok"), shown
    assert got["restarted"] == (what == "ends"), shown
    if what == "ends":
        assert NAME in got["bad"], shown
        return
    assert got["beside"] == "ok" or what == "refused", shown
    assert got["good"] == ["ok", "ok"], shown
    if what == "refused":
        assert got["bad"] != "ok" or not named or "given unparsed" in shown, shown
        assert not named or "culprit" in shown, shown
    else:
        assert got["bad"] == "ok", shown
    if what == "waits":
        assert got["beside_seconds"] < got["seconds"] - 5, shown
    if what == "blocks":
        assert got["beside_seconds"] > 9, (
            f"it does not any more: say so in subjects.py and docs/reliability.md\n{shown}"
        )


def test_every_hook_is_a_subject_or_has_done_its_work_when_an_engine_runs():
    assert {subject.hook for subject in SUBJECTS.values()} | AT_THE_START | OF_THE_SERVER | LISTINGS == set(ASKED)


def test_the_table_in_the_documentation_says_the_same():
    text = PAGE.read_text()
    assert page(text) == text, "run: python -m tests.faults.table"
