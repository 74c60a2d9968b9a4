"""Whose fault an exception is: the client's, with its text, or ours, which only the log tells."""

from __future__ import annotations

import logging

import pytest
from vllm_plugin_server.errors import bad_request, error_of, name_fields
from vllm_plugin_server.testing.wire import address_of

from vllm_core.engine.batch_call import priorities
from vllm_core.serving import RequestError


def caught(function, *arguments) -> BaseException:
    with pytest.raises(Exception) as info:
        function(*arguments)
    return info.value


def test_what_the_engine_says_of_a_request_is_a_400_with_its_text():
    error = error_of(RequestError("temperature must be at least 0"))
    assert (error.status, error.param) == (400, "temperature")


def test_a_value_error_of_the_engine_is_the_requests_and_the_log_says_where(caplog):
    with caplog.at_level(logging.WARNING):
        error = error_of(caught(priorities, 3, 1, "fcfs"))
    assert error.status == 400
    assert "priority has no effect" in error.message
    assert "batch_call.py:" in caplog.text
    assert "Traceback" not in caplog.text  # clients could fill the log with them


def test_a_value_error_of_the_server_itself_is_a_bug(caplog):
    """It says `ApiError` where it means a request: anything else was not meant."""
    with caplog.at_level(logging.WARNING):
        error = error_of(caught(address_of, "ftp://secret"))
    assert error.status == 500
    assert "secret" not in error.message
    assert "Traceback" in caplog.text
    assert error_of(bad_request("no", "n")).status == 400


def test_a_field_has_the_name_that_the_request_gave_it():
    name_fields({"logprobs": "top_logprobs"})
    error = error_of(RequestError("logprobs=300: at most 20"))
    assert (error.param, error.message) == ("top_logprobs", "top_logprobs=300: at most 20")
    name_fields({})
    assert error_of(RequestError("logprobs=300: at most 20")).param == "logprobs"
