"""JSON that two parsers could read differently is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm_plugin_server.errors import ApiError, error_body
from vllm_plugin_server.strict_json import depth_of, parse_object

REFUSED = {
    "an empty body": b"",
    "spaces": b"  \n",
    "a list": b"[]",
    "a text": b'"a"',
    "null": b"null",
    "half an object": b'{"a": 1',
    "two objects": b"{} {}",
    "a comma too many": b'{"a": 1,}',
    "a key twice": b'{"a": 1, "a": 1}',
    "a key twice inside": b'{"a": [{"b": 1, "b": 2}]}',
    "a key twice, once escaped": b'{"a": 1, "\\u0061": 2}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b'{"a": [-Infinity]}',
    "a float that is infinite": b'{"a": 1e999}',
    "a whole number without end": b'{"a": ' + b"9" * 5000 + b"}",
    "invalid UTF-8": b'{"a": "\xff"}',
    "half of a surrogate pair": b'{"a": "\\ud800"}',
    "the other half as a key": b'{"\\udc00": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "65 levels": b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
    "100,000 levels": b'{"a": ' + b"[" * 100_000,
    "a control character in a text": b'{"a": "\n"}',
    "single quotes": b"{'a': 1}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_a_short_reason(body):
    with pytest.raises(ApiError) as caught:
        parse_object(body)

    assert caught.value.status == 400
    assert caught.value.code == "invalid_json"
    assert len(caught.value.message) < 200


def test_what_the_standard_allows_is_read():
    assert parse_object(b'\xef\xbb\xbf{"a": [1, -2.5e3, null, "\\ud83d\\ude00"]}') == {"a": [1, -2500.0, None, "😀"]}
    assert parse_object(b'{"a": ' + b"[" * 62 + b"]" * 62 + b"}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_comes_back_as_it_was(value):
    body = json.dumps({"a": value}).encode("utf-8", "surrogatepass")
    if depth_of({"a": value}) <= 64:
        assert parse_object(body) == {"a": value}


def test_an_error_is_at_most_eight_kilobytes_however_long_its_message():
    for text in ("x" * 100_000, "\x00" * 100_000, "😀" * 100_000, '"' * 100_000, "\ud800" * 10_000):
        body = error_body(ApiError(400, text, param="p" * 10_000))
        assert len(body) <= 8 * 1024
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
