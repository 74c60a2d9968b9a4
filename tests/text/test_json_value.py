"""One JSON value in pieces, against Python's json."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_core.text.json_value import LONGEST_SCALAR, JsonValue

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def read(text, sizes=()):
    """(state, what was given out, what is left of the text, and held)"""
    value, out, at = JsonValue(), "", 0
    for size in [*sizes, len(text)]:
        piece = text[at : at + size]
        end = value.feed(piece)
        out += value.take()
        at += end
        if end < len(piece) or value.done or value.broken:
            break
    value.finish()
    out += value.take()
    return "done" if value.done else "broken" if value.broken else "open", out, value.rest() + text[at:]


def is_json(text):
    try:
        json.loads(text, parse_constant=lambda name: pytest.fail("refused below"))
    except ValueError:
        return False
    return True


@given(values, st.booleans(), st.sampled_from([None, 2]), st.lists(st.integers(1, 5), max_size=60))
def test_a_value_is_given_out_as_written_and_its_end_is_found(value, ascii_only, indent, sizes):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert read(text, sizes) == ("done", text, "")
    if isinstance(value, dict | list | str):
        assert read(text + " }x", sizes) == ("done", text, " }x")


@settings(max_examples=500)
@given(st.text('{}[]",:\\ 01.e-+truefalsn\n', max_size=24), st.lists(st.integers(1, 4), max_size=24))
def test_any_text_gives_the_same_in_pieces_and_only_json_is_done(text, sizes):
    state, out, rest = read(text)
    assert read(text, sizes) == (state, out, rest)
    assert is_json(out) == (state == "done")
    if state == "done" and "\\" not in text and "\n" not in text:
        assert out + rest == text


@pytest.mark.parametrize(
    ("text", "out", "rest"),
    [
        ('{"a": oops}', '{"a": ', "oops}"),
        ('{"a": 1,}', '{"a": 1,', "}"),
        ('{"a": 1</x>', '{"a": 1', "</x>"),
        ('[1, "b" "c"]', '[1, "b" ', '"c"]'),
        ("{'a': 1}", "{", "'a': 1}"),
        ("[tru, 1]", "[", "tru, 1]"),
        ("[NaN]", "[", "NaN]"),
        ("[01]", "[", "01]"),
    ],
)
def test_what_is_no_json_is_left_from_the_mistake_on(text, out, rest):
    assert read(text) == ("broken", out, rest)
    assert read(text, [1] * len(text)) == ("broken", out, rest)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ('"a\nb\tc\x01"', r'"a\nb\tc\u0001"'),
        (r'"\d+ \\d \' \q"', r'"\\d+ \\d \\' + r"' \\q" + '"'),
        (r'"\u12g \user \u00e9"', r'"\\u12g \\user \u00e9"'),
    ],
)
def test_slips_in_strings_are_mended(text, out):
    for sizes in ([], [1] * len(text)):
        assert read(text, sizes) == ("done", out, "")
    assert is_json(out)


def test_a_scalar_that_never_ends_is_given_up_and_kept():
    text = "[" + "1" * (3 * LONGEST_SCALAR)
    state, out, rest = read(text, [7] * len(text))
    assert (state, out + rest) == ("broken", text)


def test_nesting_has_no_limit():
    text = "[" * 50_000 + "]" * 50_000
    assert read(text, [999] * 101) == ("done", text, "")
