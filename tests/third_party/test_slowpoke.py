"""A stranger's attention backend with settings of its own, and another of the same rank."""

import json

import pytest

from tests.third_party.conftest import Shell


@pytest.fixture(scope="module")
def site(pip_install):
    return pip_install("owl", "slowpoke", "rival")


@pytest.fixture
def shell(site, tmp_path, probed):
    return Shell(tmp_path, site, probed)


def served(done):
    """Who serves each attention query of an ``explain --json``."""
    assert done.code == 0, done.err
    choices = [c for c in json.loads(done.out)["choices"] if c["hook"] == "attention_backend"]
    return {c["query"]["kind"]: (c["chosen"]["name"], c["why"]) for c in choices}


def test_settings_are_shown_with_type_default_unit_and_flag(shell):
    done = shell("plugins", "show", "slowpoke")
    assert "--plugin.slowpoke.pause-ms  Pause before each step. Default: 0.0 ms." in done.out
    (row,) = json.loads(shell("plugins", "show", "slowpoke", "--json").out)
    first = row["settings"][0]
    assert (first["name"], first["type"], first["default"], first["unit"]) == ("pause_ms", "float", 0.0, "ms")


def test_equal_ranks_are_an_error_with_the_line_that_settles_it_and_prefer_does(shell, owl_folder):
    shell.toml('[plugins]\nblock = ["cpu-attention"]\n[plugin.slowpoke]\nwindows = true\n')
    tied = shell("explain", owl_folder)
    assert (tied.code, tied.out) == (1, "")
    assert "rival (vllm-plugin-rival 2.0.0) and slowpoke (vllm-plugin-slowpoke 1.4.0) are equally good here" in tied.err
    line = 'prefer.attention_backend = ["slowpoke"]'
    assert f"{line} under [plugins] in vllm.toml takes slowpoke (vllm-plugin-slowpoke 1.4.0)" in tied.err
    # The line, copied into the file, settles it. Settings come from the file too, and flags go over it.
    tables = "[plugin.slowpoke]\nwindows = true\npause_ms = 3\nlog = 'from-file'\n"
    shell.toml(f'[plugins]\nblock = ["cpu-attention"]\n{line}\n{tables}')
    settled = shell("explain", owl_folder, "--json", "--plugin.slowpoke.pause-ms", "2")
    assert served(settled) == dict.fromkeys(("full", "sliding_window"), ("slowpoke", "named in prefer"))
    choice = next(c for c in json.loads(settled.out)["choices"] if c["hook"] == "attention_backend")
    assert choice["chosen"]["options"] == {"pause_ms": 2.0, "log": "from-file"}
    by_flag = shell("explain", owl_folder, "--json", "--prefer", '{"attention_backend": ["rival"]}')
    assert served(by_flag)["full"] == ("rival", "named in prefer")


def test_a_refusal_that_was_merely_found_is_on_record_and_the_rest_serves(shell, owl_folder):
    shell.toml('[plugins]\nprefer.attention_backend = ["slowpoke", "rival"]\n')
    done = shell("explain", owl_folder, "--json")
    refusals = [a for c in json.loads(done.out)["choices"] for a in c["answers"] if a["answer"] == "refusal"]
    (refusal,) = [a for a in refusals if a["plugin"] == "slowpoke"]
    assert refusal["reason"] == "a window of 9 tokens makes it nervous"
    assert refusal["remedy"] == "--plugin.slowpoke.windows true"
    assert served(done) == {
        "full": ("slowpoke", "earlier in prefer"),
        "sliding_window": ("rival", "named in prefer"),
    }


def test_named_it_must_serve_all_layers_and_its_remedy_works(shell, owl_folder):
    words = (
        "complete",
        owl_folder,
        "hoo",
        "-q",
        "--temperature",
        "0",
        "--max-tokens",
        "6",
        "--attention-backend",
        "slowpoke",
    )
    refused = shell(*words)
    assert (refused.code, refused.out) == (1, "")
    assert 'attention backend "slowpoke" was asked for (--attention-backend) and cannot be used.' in refused.err
    assert "a window of 9 tokens makes it nervous; --plugin.slowpoke.windows true" in refused.err

    log = shell.folder / "log"
    served = shell(
        *words, "--plugin.slowpoke.windows", "true", "--plugin.slowpoke.log", log, "--plugin.slowpoke.pause-ms=1.5"
    )
    assert served.code == 0, served.err
    assert sorted(log.read_text().splitlines()) == ["pause 0.0015 s, window 9", "pause 0.0015 s, window None"]
    reference = shell(*words[:-1], "reference")
    assert served.out == reference.out


@pytest.mark.parametrize(
    ("toml", "words", "said"),
    [
        ("", ("--plugin.slowpoke.pause-ms", "soon"), ("pause_ms", "soon", "--plugin.slowpoke.pause-ms")),
        ("", ("--plugin.slowpoke.pause-ms", "-1"), ("pause_ms must be at least 0.0 ms, not -1.0",)),
        (
            "",
            ("--plugin.slowpoke.paus-ms", "1"),
            ('"paus_ms" is not a setting of plugin "slowpoke"; did you mean "pause_ms"?',),
        ),
        ("", ("--plugin.slowpok.pause-ms", "1"), ('no plugin "slowpok" is installed; did you mean "slowpoke"?',)),
        ("", ("--plugin.rival.speed", "1"), ('plugin "rival" has no settings', "vllm-plugin-rival 2.0.0")),
        ('[plugin.slowpoke]\npause_ms = "soon"', (), ("pause_ms", "soon", "[plugin.slowpoke] of ./vllm.toml")),
        ("[plugin.slowpoke]\nwindow = true", (), ('did you mean "windows"?', "[plugin.slowpoke] of ./vllm.toml")),
        ("[plugin.slowpok]\nwindows = true", (), ('did you mean "slowpoke"?', "[plugin.slowpok] of ./vllm.toml")),
    ],
)
def test_a_wrong_setting_ends_the_start_before_a_model_is_looked_for(shell, toml, words, said):
    shell.toml(toml)
    done = shell("complete", "/nowhere/there-is-no-such-model", "hoo", *words)
    assert (done.code, done.out) == (2, "")
    assert "there-is-no-such-model" not in done.err
    for text in said:
        assert text in done.err
