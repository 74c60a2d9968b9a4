"""Text in pieces, read as if it were whole."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.tokenizers_for_tests import byte_level
from vllm_core.text.pieces import Pieces, hides

MARKERS = ("<ab>", "<abc", "b>")


def run(script, pieces):
    """The script over the pieces: what it had given after each, then at the end."""
    text, given = Pieces(), []
    generator, stages = script(text, given), []
    done = False
    for piece in [*pieces, None]:
        text.close() if piece is None else text.push(piece)
        if not done:
            done = next(generator, "over") == "over"
        stages.append("".join(given))
    assert done
    return stages


def split(text, given):
    while marker := (yield from text.until(MARKERS, given.append)):
        given.append(f"[{marker}]")


@given(st.text("<ab>c", max_size=30), st.lists(st.integers(1, 4), max_size=30))
def test_markers_are_found_wherever_they_are_cut(text, sizes):
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])
    want = re.sub("|".join(map(re.escape, sorted(MARKERS, key=len, reverse=True))), lambda m: f"[{m.group()}]", text)
    whole = run(split, [text])[-1]
    assert whole == want
    assert run(split, pieces)[-1] == want


def test_only_what_may_begin_a_marker_is_held_back():
    assert run(split, ["x", "x<", "a", "y", "<", "ab"]) == ["x", "xx", "xx", "xx<ay", "xx<ay", "xx<ay", "xx<ay<ab"]


def test_a_look_ahead_waits_only_as_long_as_it_must():
    def script(text, given):
        given.append(str((yield from text.ahead("abc"))))
        given.append(str((yield from text.passes("ab"))))
        given.append((yield from text.peek()))

    assert run(script, ["a", "b", "c"]) == ["", "", "TrueTruec", "TrueTruec"]
    assert run(script, ["a", "x"]) == ["", "FalseFalsea", "FalseFalsea"]
    assert run(script, ["ab"]) == ["", "FalseTrue"]


def test_what_is_read_is_kept_and_runs_end_where_they_must():
    def script(text, given):
        text.keep()
        yield from text.space()
        given.append((yield from text.run(re.compile("[a-z]*"), 3)))
        given.append(repr(text.kept()))
        given.append(text.take())

    assert run(script, [" ", "\n a", "bc", "d1"])[-1] == "abc'" + r" \n abc'" + "d1"


def test_special_tokens_hide_markers_and_others_do_not():
    assert hides(byte_level(), ("<|im_start|>",))
    assert hides(byte_level(), ("plain", "<|im_start|>"))
    assert not hides(byte_level(), ("<plain>", "again"))
