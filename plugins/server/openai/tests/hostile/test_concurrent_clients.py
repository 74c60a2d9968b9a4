"""Clients that come, read, leave and ask wrongly in any order: the others get what they always get."""

import http.client
import json
import socket
import struct

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

pytestmark = pytest.mark.slow

PROMPTS = ("Hello", "abcabcabc", "1 2 3 4 5", "The quick brown fox", "x" * 200)
TOKENS = 24
MOST = 12  # streams at once
WRONG = (
    {"prompt": [-1]}, {"prompt": "x", "n": -1}, {"prompt": "x", "structured_outputs": {"regex": "("}},
    {"prompt": None}, {"prompt": "x", "logit_bias": {"-1": 1}}, {"prompt": ["x"] * 5000},
    {"promt": "x"}, {"prompt": "x", "max_tokens": -1},
)  # fmt: skip


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)


def ask(server, body):
    """(status, answer) of a request on a connection of its own."""
    connection = connect(server)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def whole(server, prompt):
    body = {"model": "tiny", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    status, answer = ask(server, body)
    assert status == 200, answer
    return answer["choices"][0]["text"]


class Clients(RuleBasedStateMachine):
    """``server`` and ``expected``, the answer to each prompt when it is alone, are set by the test."""

    server, expected = None, None

    def __init__(self):
        super().__init__()
        self.streams = []  # (connection, answer or None, prompt)

    def some(self, number):
        return self.streams.pop(number % len(self.streams))

    @rule(prompt=st.sampled_from(PROMPTS), chat=st.booleans())
    @precondition(lambda self: len(self.streams) < MOST)
    def begins_a_stream(self, prompt, chat):
        body = {"model": "tiny", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
        body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        connection = connect(self.server)
        path = "/v1/chat/completions" if chat else "/v1/completions"
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        self.streams.append((connection, prompt, chat))

    @rule(number=st.integers(0, MOST), reset=st.booleans(), read=st.sampled_from((0, 1, 300)))
    @precondition(lambda self: self.streams)
    def leaves(self, number, reset, read):
        connection, _, _ = self.some(number)
        if read:
            connection.sock.recv(read)
        if reset:  # no good-bye: the peer sees the connection reset
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    @rule(number=st.integers(0, MOST))
    @precondition(lambda self: self.streams)
    def reads_to_the_end(self, number):
        connection, prompt, chat = self.some(number)
        answer = connection.getresponse()
        assert answer.status == 200
        events = [part.removeprefix("data: ") for part in answer.read().decode().strip().split("\n\n")]
        connection.close()
        assert events[-1] == "[DONE]"
        choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
        if not chat:
            assert "".join(choice["text"] for choice in choices) == self.expected[prompt]
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]

    @rule(prompt=st.sampled_from(PROMPTS))
    def asks_for_a_whole_answer(self, prompt):
        assert whole(self.server, prompt) == self.expected[prompt]

    @rule(fields=st.sampled_from(WRONG))
    def asks_wrongly(self, fields):
        status, answer = ask(self.server, {"model": "tiny", **fields})
        assert status == 400, answer
        assert answer["error"]["message"]

    @invariant()
    def is_well(self):
        connection = connect(self.server)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()

    def teardown(self):
        for connection, *_ in self.streams:
            connection.close()
        assert self.server.is_idle(20)


def test_whatever_clients_do_others_get_their_answers_and_nothing_is_left(server):
    Clients.server, Clients.expected = server, {prompt: whole(server, prompt) for prompt in PROMPTS}
    run_state_machine_as_test(
        Clients,
        settings=settings(
            max_examples=12, stateful_step_count=20, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
