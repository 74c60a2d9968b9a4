from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vllm_core.engine.stop_strings import StopStrings

text_of = st.text(alphabet="ab.", max_size=30)


def run(stops, pieces, include=False):
    """(all text, stop met, how much text was out after each piece)"""
    filter_ = StopStrings(stops, include)
    out, lengths = "", []
    for piece in pieces:
        text, stop = filter_.push(piece)
        out += text
        lengths.append(len(out))
        if stop is not None:
            return out, stop, lengths
    return out + filter_.flush(), None, lengths


def first_end(stops, text):
    """Read character by character: the first place where a stop string is complete."""
    for end in range(1, len(text) + 1):
        met = [s for s in stops if text[:end].endswith(s)]
        if met:
            stop = max(met, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(
    stops=st.lists(st.text(alphabet="ab.", min_size=1, max_size=4), min_size=1, max_size=3),
    pieces=st.lists(text_of, max_size=10),
)
def test_any_cutting_into_pieces_gives_what_reading_by_character_gives(stops, pieces):
    out, stop, lengths = run(stops, pieces)
    want, want_stop = first_end(stops, "".join(pieces))
    assert (out, stop) == (want, want_stop)
    assert all(n <= len(want) for n in lengths)  # nothing was given out that had to be taken back


@given(stops=st.lists(st.text(alphabet="ab.", min_size=1, max_size=4), min_size=1, max_size=3), text=text_of)
def test_only_what_may_still_become_a_stop_string_is_held(stops, text):
    _, stop, lengths = run(stops, list(text))
    if stop is None:
        held = max((k for s in stops for k in range(len(s)) if text.endswith(s[:k])), default=0)
        assert (lengths[-1] if lengths else 0) == len(text) - held


def test_the_stop_string_stays_when_it_is_asked_for():
    assert run(["END"], ["one E", "ND two"], include=True)[:2] == ("one END", "END")
    assert run(["END"], ["one E", "ND two"])[:2] == ("one ", "END")


def test_a_beginning_that_comes_to_nothing_is_given_out():
    assert run(["END"], ["one EN", "ough"])[0] == "one ENough"
    assert run(["END"], ["one EN"])[0] == "one EN"
