"""Requests say ``SamplingParams(extra_args={"deadline_ms": 500})`` or, over HTTP, ``"vllm_xargs": {...}``."""


class EarliestDeadline:
    def __init__(self, query):
        self.default = query.options["default_ms"]

    @classmethod
    def check(cls, params, query):
        if "deadline_ms" not in params:
            return False
        wanted = params["deadline_ms"]
        if type(wanted) not in (int, float) or not 0 <= wanted < 1e9:
            raise ValueError(f"deadline_ms must be a number of milliseconds from 0 on, not {wanted!r:.40}")
        return True

    def key(self, request):
        return (request.arrival + request.extra_args.get("deadline_ms", self.default) / 1000,)
