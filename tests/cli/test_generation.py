"""``vllm-core complete`` and ``chat``, with an engine that only repeats. Real ones: tests/system."""

import io
import re
import sys

import pytest

from vllm_core.cli.clock import seconds_since_start
from vllm_core.engine.sampling_params import SamplingParams

SETTINGS = """
@hookimpl
def settings():
    return "{module}_conf:Conf"
"""
CONF = """
import attrs
from vllm_core.config.setting import setting

@attrs.frozen(kw_only=True)
class Conf:
    size: int = setting(1, help="Size.", low=1)
"""
FIGURES = (
    r"\[3 prompt tokens, 3 tokens, [\d.]+ tokens/s, "
    r"first token [\d.]+ s after submission, [\d.]+ s after process start\]\n"
)


@pytest.fixture
def typed(monkeypatch):
    """``typed("text")`` is what stands on standard input; ``tty`` makes it a terminal."""

    def set_input(text, tty=False):
        stdin = io.StringIO(text)
        stdin.isatty = lambda: tty
        monkeypatch.setattr(sys, "stdin", stdin)

    return set_input


def test_complete_prints_the_text_and_beside_it_the_figures(run, echo):
    code, out, err = run("complete", "M", "a b c")
    assert (code, out) == (0, "c b a\n")
    assert re.fullmatch(FIGURES, err)


def test_quiet_prints_the_text_alone(run, echo):
    assert run("complete", "M", "a b", "c d", "-q") == (0, "b a\nd c\n", "")


def test_only_the_first_answer_is_timed_from_the_start_of_the_process(run, echo):
    _, _, err = run("complete", "M", "a b", "c d")
    assert ["process start" in line for line in err.splitlines()] == [True, False]


def test_complete_reads_standard_input_without_a_prompt(run, echo, typed):
    typed("x y")
    assert run("complete", "M", "--quiet") == (0, "y x\n", "")
    typed("")
    code, _, err = run("complete", "M")
    assert code == 2
    assert "there is no text to continue" in err


def test_flags_of_sampling_go_on_top_of_the_models_defaults(run, echo):
    run("complete", "M", "a", "--top-p", "0.5", "--stop", "x", "--stop", "y", "--temperature", "0")
    ((_, params),) = echo.made[0].asked
    assert params == SamplingParams(top_k=7, temperature=0.0, top_p=0.5, stop=("x", "y"), max_tokens=128)


def test_chat_runs_until_the_model_ends_unless_told(run, echo):
    run("chat", "M", "a")
    run("chat", "M", "a", "--max-tokens", "9")
    assert [llm.asked[0][1].max_tokens for llm in echo.made] == [None, 9]


def test_a_wrong_sampling_value_is_refused_before_a_model_is_loaded(run, echo):
    code, _, err = run("chat", "M", "a", "--temperature", "-1")
    assert code == 2
    assert "temperature must be at least 0, not -1.0" in err
    assert echo.made == []


def test_settings_reach_the_engine_from_every_source(run, echo, home, monkeypatch):
    home.joinpath("vllm.toml").write_text("[engine]\nmax_num_seqs = 2\nseed = 1")
    monkeypatch.setenv("VLLM_CORE_BLOCK_SIZE", "8")
    code, _, err = run("chat", "M", "--seed", "5", "a", "--no-async-scheduling", "--plugins-block", "nobody-has-this")
    settings = echo.made[0].settings
    assert code == 0, err
    assert (settings.model, settings.max_num_seqs, settings.seed, settings.block_size) == ("M", 2, 5, 8)
    assert settings.async_scheduling is False
    assert settings.plugins == {"block": ["nobody-has-this"]}
    assert "nobody-has-this" in err


def test_a_plugins_setting_is_checked_before_the_engine_is_made(run, echo, install):
    install("sized", SETTINGS, conf=CONF)
    code, _, err = run("chat", "M", "--plugin.sized.size", "0", "a")
    assert code == 2
    assert 'plugin "sized": size must be at least 1, not 0' in err
    assert "--plugin.sized.size" in err
    assert echo.made == []
    assert run("chat", "M", "--plugin.sized.size", "4", "a")[0] == 0
    assert echo.made[0].settings.plugin["sized"]["size"].value == "4"


def test_quarantined_plugins_are_named_before_the_answer(run, echo, install):
    install("raises", "raise RuntimeError('no such library')")
    code, out, err = run("chat", "M", "a", "-q")
    assert (code, out) == (0, "a\n")
    assert re.fullmatch(r"plugin raises \(dummy-raises 1\.5\) is quarantined: .*no such library.*\n", err)


def test_what_only_the_engine_notices_is_told_once(run, echo, install):
    install("raises", "raise RuntimeError('no such library')")
    echo.built.warnings = ('"x" in prefer.sampler is not installed: nothing to prefer',)
    _, _, err = run("chat", "M", "a", "-q")
    assert [line.split()[0] for line in err.splitlines()] == ["plugin", '"x"']


def test_verbose_shows_where_the_start_went(run, echo):
    _, _, err = run("chat", "M", "a", "--verbose")
    assert "0.250 s  plugins" in err
    assert "since the process started" in err


def said(text):
    return {"role": "user", "content": text}


def test_chat_takes_the_message_as_argument_flag_or_all_of_standard_input(run, echo, typed):
    typed("two\nlines")
    run("chat", "M", "as argument", "--system", "be brief")
    run("chat", "M", "--prompt", "as flag")
    run("chat", "M", "-")
    assert [llm.asked[0][0] for llm in echo.made] == [
        [{"role": "system", "content": "be brief"}, said("as argument")],
        [said("as flag")],
        [said("two\nlines")],
    ]


@pytest.mark.parametrize("words", [("a", "--prompt", "b"), ("",), ("--prompt", " "), (), ("-",)])
def test_no_message_or_two_are_refused(run, echo, typed, words):
    typed("\n \n")
    code, _, err = run("chat", "M", *words)
    assert code == 2
    assert "message" in err
    assert echo.made == []


def test_each_line_of_standard_input_is_a_message_of_one_talk(run, echo, typed):
    typed("a b\n\nc\n/clear\n/etc/hosts d\n/exit\nnot asked\n")
    code, out, err = run("chat", "M", "-q", "--system", "s")
    assert (code, out) == (0, "b a\nc\nd /etc/hosts\n")
    assert "forgotten" in err
    system = {"role": "system", "content": "s"}
    assert [asked for asked, _ in echo.made[0].asked] == [
        [system, said("a b")],
        [system, said("a b"), {"role": "assistant", "content": "b a"}, said("c")],
        [system, said("/etc/hosts d")],
    ]


@pytest.mark.parametrize(("line", "code"), [("too long", 1), ("interrupt this", 130)])
def test_what_goes_wrong_ends_a_talk_without_a_person(run, echo, typed, line, code):
    typed(f"a\n{line}\nb\n")
    assert run("chat", "M", "-q")[0] == code
    assert len(echo.made[0].asked) == 2


@pytest.fixture
def person(monkeypatch):
    """``person("line", KeyboardInterrupt, ...)`` types these at a terminal, then Ctrl-D."""

    def types(*lines):
        left = iter(lines)

        def ask(prompt=""):
            line = next(left, EOFError)
            if isinstance(line, str):
                return line
            raise line

        monkeypatch.setattr("builtins.input", ask)
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)

    return types


def test_a_talk_remembers_what_was_said(run, echo, person):
    person("a b", "", "too long", "interrupt this", KeyboardInterrupt, "c")
    code, _, err = run("chat", "M", "-q")
    assert code == 0
    assert "ValueError: the prompt has 9 tokens, and 8 fit\n  instead /clear" in err
    assert "stopped" in err
    (llm,) = echo.made
    assert llm.asked[-1][0] == [said("a b"), {"role": "assistant", "content": "b a"}, said("c")]
    assert llm.stopped


def test_commands_of_a_talk_are_told_and_forgotten_turns_are_not_sent(run, echo, person):
    person("a", "/help", "/clear", "/exot", "b", "/exit", "c")
    code, out, err = run("chat", "M", "-q")
    assert (code, out) == (0, "a\nb\n")
    for name in ("/help ", "/clear ", "/exit "):
        assert f"  {name}" in err
    assert 'there is no /exot; did you mean "/exit"?' in err
    assert echo.made[0].asked[-1][0] == [said("b")]


def test_an_interrupted_answer_is_130_and_the_engine_is_ended(run, echo):
    assert run("complete", "M", "interrupt me")[0] == 130
    assert echo.made[0].stopped


def test_a_failed_request_is_exit_code_1_with_its_reason(run, echo):
    echo.fails = "the device is gone"
    code, _, err = run("complete", "M", "a")
    assert (code, err) == (1, "RuntimeError: the device is gone\n")


def test_the_process_is_older_than_this_test():
    first = seconds_since_start()
    assert 0 < first <= seconds_since_start() < 86400
