"""Every way a plugin can go wrong, through the real command line: who, what, why and what helps; the rest goes on."""

import json
import re
import time

import pytest

from tests.third_party.broken import BROKEN, QUARANTINED, write_source
from tests.third_party.conftest import PACKAGES, Shell
from tests.third_party.owl_oracle import CONFIG


@pytest.fixture(scope="module")
def site(pip_install, tmp_path_factory):
    """All of them, and one that works."""
    folder = tmp_path_factory.mktemp("broken")
    return pip_install(*(write_source(folder, name) for name in BROKEN), PACKAGES / "owl")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache-of-broken")


@pytest.fixture
def shell(site, cache, tmp_path):
    return Shell(tmp_path, site, cache)


@pytest.fixture(scope="module")
def listed(site, cache, tmp_path_factory):
    """``plugins list`` as text and as JSON: the first start, and the second."""
    shell = Shell(tmp_path_factory.mktemp("work"), site, cache)
    first, second = shell("plugins", "list", TRIES="tries"), shell("plugins", "list", "--json", TRIES="tries")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    return first, json.loads(second.out), shell.folder.joinpath("tries").read_text()


@pytest.mark.parametrize("name", QUARANTINED)
def test_the_list_says_whose_what_why_and_what_helps(listed, name):
    text, rows, _ = listed
    (row,) = [r for r in rows if r["distribution"] == f"dummy-{name}"]
    broken = BROKEN[name]
    assert (row["state"], row["version"], row["name"]) == ("quarantined", "1.0", broken.plugin or name)
    assert " ".join(row["reason"].split()).startswith(broken.why)
    assert row["remedy"] == broken.remedy
    lines = text.out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.split()[2:3] == [f"dummy-{name}"] and line[0] != " "]
    assert f"quarantined because {broken.why}" in lines[at]
    assert lines[at + 1].split() == ["remedy", *broken.remedy.split()]


def test_the_others_are_active_and_the_second_list_waits_for_nobody(listed):
    _, rows, tries = listed
    states = {
        row["name"]: row["state"] for row in rows if row["distribution"].removeprefix("dummy-") not in QUARANTINED
    }
    assert states == dict.fromkeys(states, "active")
    assert {"core", "owl", "moody", "hollow", "grumpy", "babbling", "sleepy"} <= set(states)
    assert tries == "x"  # the one that hangs was imported once


def test_an_answer_comes_all_the_same_below_one_line_for_each_quarantined_plugin(shell, owl_folder):
    done = shell(
        "complete", owl_folder, "The capital of France", "--max-tokens", "4", "--attention-backend", "reference"
    )
    assert done.code == 0, done.err
    *said, figures = sorted(done.err.splitlines(), key=lambda line: "4 tokens" in line)
    assert "4 tokens" in figures
    late = "plugin moody (dummy-moody 1.0) is quarantined: importing it raised OSError: not here"
    assert len(said) == len(QUARANTINED) + 1
    assert late in said
    for name, broken in QUARANTINED.items():
        head = f"plugin {broken.plugin or name} (dummy-{name} 1.0) is quarantined: "
        (line,) = [line for line in said if line.startswith(head)]
        assert broken.why in line


def test_explain_tells_what_refused_and_why(shell, owl_folder):
    done = shell("explain", owl_folder, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert set(report["quarantined"]) == {broken.plugin or name for name, broken in QUARANTINED.items()}
    choice = next(c for c in report["choices"] if c["hook"] == "attention_backend")
    answers = {a["plugin"]: a for a in choice["answers"]}
    assert answers["grumpy"]["reason"] == "raised OSError: no such device"
    assert answers["babbling"]["reason"] == "returned 'yes', not Offer, Refusal or None: a bug of the plugin"
    assert answers["sleepy"]["answer"] == "none"
    assert choice["chosen"]["distribution"] in ("vllm-core", "vllm-plugin-cpu-attention", "vllm-plugin-cpu-native")


def test_what_the_user_named_fails_loudly(shell, owl_folder):
    done = shell("complete", owl_folder, "hoo", "--attention-backend", "grumpy")
    assert (done.code, done.out) == (1, "")
    assert 'attention backend "grumpy" was asked for (--attention-backend) and cannot be used.' in done.err
    assert "  by      dummy-grumpy 1.0, plugin grumpy\n  why     raised OSError: no such device\n" in done.err
    assert re.search(r"  instead \w+ \(.*\) accepts the same engine; leave the setting out to use it", done.err)
    assert "Traceback" not in done.err


def test_a_hook_that_hangs_ends_the_start_in_time_and_by_name(shell, owl_folder):
    shell.toml("[plugins]\nanswer_timeout_s = 0.5\n")
    begun = time.monotonic()
    done = shell("complete", owl_folder, "hoo", SLEEP="1")
    assert time.monotonic() - begun < 55  # the hook would take 60 s
    assert (done.code, done.out) == (1, "")
    assert 'plugin "sleepy" was asked for attention_backend and had not answered after 0.5 s.' in done.err
    assert "dummy-sleepy 1.0, entry point sleepy = dummy_sleepy" in done.err
    assert "--plugins-block sleepy" in done.err
    # The remedy holds what it says.
    assert shell("explain", owl_folder, "--plugins-block", "sleepy", SLEEP="1").code == 0


def test_a_missing_target_is_fatal_only_to_the_model_that_needs_it(shell, tmp_path):
    folder = tmp_path / "hollow"
    folder.mkdir()
    folder.joinpath("config.json").write_text(json.dumps({**CONFIG, "architectures": ["HollowForCausalLM"]}))
    done = shell("explain", folder, "--load-format", "dummy")
    assert (done.code, done.out) == (1, "")
    assert 'model "HollowForCausalLM" was chosen and its target cannot be imported.' in done.err
    assert "dummy-hollow 1.0, plugin hollow, target dummy_no:Hollow" in done.err
    assert "No module named 'dummy_no'" in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("--plugins-require", "owl", "--plugins-block", "owl"),
            1,
            'plugin "owl" is required (require in --plugins-require) and is disabled.\n'
            "  by      vllm-plugin-owl 0.3.1, entry point owl = vllm_plugin_owl\n"
            "  why     disabled by block in --plugins-block\n"
            '  instead remove "owl" there',
        ),
        (
            ("--plugins-require", "raises"),
            1,
            'plugin "raises" is required (require in --plugins-require) and is quarantined.\n'
            "  by      dummy-raises 1.0, entry point raises = dummy_raises\n"
            "  why     importing it raised ImportError: libraise.so.13",
        ),
        (
            ("--plugins-require", "owll"),
            2,
            '"owll" in require in --plugins-require is not installed; did you mean "owl"?',
        ),
        (
            ("--plugins-require", "model:OwlForCausalLM", "--plugins-block", "model:OwlForCausalLM"),
            1,
            '"model:OwlForCausalLM" is required (require in --plugins-require), and no active plugin offers',
        ),
    ],
)
@pytest.mark.parametrize("command", ["list", "explain", "complete"])
def test_what_is_required_and_not_active_ends_every_command(shell, owl_folder, command, words, code, said):
    line = {"list": ["plugins", "list"], "explain": ["explain", owl_folder], "complete": ["complete", owl_folder, "x"]}
    done = shell(*line[command], *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err
