"""Responses are kept within bounds, and each for its own key only."""

from __future__ import annotations

import pytest
from vllm_plugin_server.responses.store import ResponseStore, history


def response(number, text="x"):
    message = {"id": f"msg_{number}", "type": "message", "content": [{"type": "output_text", "text": text}]}
    return {"id": f"resp_{number}", "object": "response", "output": [message]}


def given(text):
    return [{"role": "user", "content": text}]


def put(store, number, before=None, owner="", text="x"):
    turn = None if before is None else store.turn(owner, f"resp_{before}")
    store.put(owner, response(number, text), given(f"question {number}"), turn)


@pytest.fixture
def store():
    return ResponseStore(responses=4, size=1 << 20)


def test_a_response_comes_back_as_it_was(store):
    put(store, 1)
    assert store.get("", "resp_1") == response(1)
    assert store.get("", "resp_2") is None


def test_a_conversation_is_what_all_its_responses_were_given_and_gave(store):
    put(store, 1)
    put(store, 2, before=1)
    items = list(history(store.turn("", "resp_2")))
    assert [item.get("content") if "role" in item else item["id"] for item in items] == [
        "question 1",
        "msg_1",
        "question 2",
        "msg_2",
    ]
    assert [item.get("content") for item in store.given("", "resp_2")][-1] == "question 2"


def test_a_key_sees_nothing_of_another_keys(store):
    put(store, 1, owner="alice")
    assert store.get("bob", "resp_1") is None
    assert store.turn("bob", "resp_1") is None
    assert store.given("bob", "resp_1") is None
    assert store.item("bob", "msg_1") is None
    assert not store.delete("bob", "resp_1")
    assert store.get("alice", "resp_1")


def test_the_least_recently_used_goes_first(store):
    for number in range(4):
        put(store, number)
    store.get("", "resp_0")
    put(store, 4)
    assert store.get("", "resp_1") is None
    assert store.get("", "resp_0")
    assert len(store) == 4


def test_no_key_pushes_out_another_that_keeps_to_its_share(store):
    put(store, 1, owner="alice")
    put(store, 2, owner="alice")
    for number in range(3, 20):
        put(store, number, owner="bob", text="y" * 100)
    assert store.get("alice", "resp_1")
    assert store.get("alice", "resp_2")
    assert len(store) == 4


def test_the_key_that_holds_the_most_bytes_gives_way():
    store = ResponseStore(responses=100, size=30_000)
    put(store, 1, owner="alice")
    for number in range(2, 9):
        put(store, number, owner="bob", text="y" * 10_000)
    assert store.get("alice", "resp_1")
    assert store.get("bob", "resp_8")
    assert store.get("bob", "resp_2") is None


def test_bytes_are_bounded_too():
    store = ResponseStore(responses=100, size=50_000)
    for number in range(20):
        put(store, number, text="y" * 10_000)
        assert store.bytes <= 50_000
    assert 0 < len(store) < 5
    assert store.get("", "resp_19")


def test_a_response_larger_than_the_store_is_not_kept():
    store = ResponseStore(responses=100, size=5_000)
    put(store, 1)
    put(store, 2, text="y" * 10_000)
    assert (len(store), store.bytes) == (0, 0)


def test_a_turn_stays_as_long_as_something_goes_on_from_it(store):
    put(store, 1, text="first")
    put(store, 2, before=1)
    alone = store.bytes
    assert store.delete("", "resp_1")
    assert store.get("", "resp_1") is None
    assert 0 < store.bytes < alone
    assert next(item.get("content") for item in history(store.turn("", "resp_2"))) == "question 1"
    store.delete("", "resp_2")
    assert store.bytes == 0


def test_shared_turns_count_once(store):
    put(store, 1, text="y" * 10_000)
    put(store, 2, before=1)
    put(store, 3, before=1)
    assert store.bytes < 2 * 10_000


def test_a_conversation_goes_on_from_a_response_that_went_meanwhile(store):
    put(store, 1)
    before = store.turn("", "resp_1")
    store.delete("", "resp_1")
    assert store.bytes == 0
    store.put("", response(2), given("q"), before)
    assert len(list(history(store.turn("", "resp_2")))) == 4
    store.delete("", "resp_2")
    assert store.bytes == 0


def test_an_item_is_found_by_its_id_until_nothing_keeps_it(store):
    put(store, 1)
    put(store, 2, before=1)
    assert store.item("", "msg_1")["id"] == "msg_1"
    store.delete("", "resp_1")
    assert store.item("", "msg_1")
    store.delete("", "resp_2")
    assert store.item("", "msg_1") is None


def test_a_very_long_conversation_is_walked_without_recursion():
    store = ResponseStore(responses=1, size=1 << 28)
    for number in range(3000):
        put(store, number, before=number - 1 if number else None)
    assert len(list(history(store.turn("", "resp_2999")))) == 6000
    store.delete("", "resp_2999")
    assert store.bytes == 0
