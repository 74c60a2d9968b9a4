"""What /openapi.json says is asked for, by schemathesis: within it, and beside it."""

import pytest
from vllm_plugin_server.testing.case import error_shape
from vllm_plugin_server.testing.wire import Reply

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402

pytestmark = pytest.mark.slow

SECONDS = 30  # for one answer: of those that compute, the longest has 512 tokens
few = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_operation_fails_on_what_its_description_allows_or_not(server, mode):
    described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    if mode == "NEGATIVE":  # where nothing is sent, nothing can be wrong
        operations = [operation for operation in operations if operation.method == "post" and list(operation.body)]
    assert len(operations) > 5
    asked = []
    for operation in operations:

        @few
        @given(case=operation.as_strategy(generation_mode=GenerationMode[mode]))
        def run(case):
            asked.append(case.path)
            answer = case.call(base_url=server.url, timeout=SECONDS)
            case.validate_response(answer, checks=(not_a_server_error,))
            if answer.status_code >= 400 and case.method != "HEAD":
                sent = Reply(answer.status_code, {}, answer.content)
                assert not error_shape(case.path, sent), (case.body, answer.content)

        run()
    assert len(set(asked)) == len({operation.path for operation in operations})


def test_the_engine_is_idle_and_well_afterwards(server):
    assert server.is_idle(30)
    assert server.post("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2}).status_code == 200
