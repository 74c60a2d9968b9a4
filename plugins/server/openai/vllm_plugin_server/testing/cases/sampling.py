"""Fields that say how to sample, each with what it must not be, on every route that samples. A long table."""

from __future__ import annotations

from typing import Any

from vllm_plugin_server.testing.case import OK, Case, case
from vllm_plugin_server.testing.cases.good import good

__all__ = ["cases"]

HUGE = 2**63
BOTH = ("/v1/completions", "/v1/chat/completions")
ALL = (*BOTH, "/v1/responses", "/v1/messages")
EITHER = (200, 400)  # servers differ, and either is fine as long as there is an answer

# (field, what it is set to, on which routes, what may be answered, advisories)
TABLE: tuple[tuple[str, Any, tuple[str, ...], tuple[int, ...], tuple[str, ...]], ...] = (
    ("temperature", -1, ALL, (400,), ()),
    ("temperature", "hot", ALL, (400,), ()),
    ("temperature", [1], ALL, (400,), ()),
    ("temperature", True, BOTH, EITHER, ()),
    ("top_p", 0, BOTH, (400,), ()),
    ("top_p", -0.5, ALL, (400,), ()),
    ("top_p", 1.5, ALL, (400,), ()),
    ("top_p", {}, ALL, (400,), ()),
    ("top_k", -2, BOTH, (400,), ()),
    ("top_k", 1.5, BOTH, (400,), ()),
    ("top_k", 2**40, BOTH, EITHER, ()),
    ("min_p", 1.5, BOTH, (400,), ()),
    ("min_p", -1, BOTH, (400,), ()),
    ("n", 0, BOTH, (400,), ()),
    ("n", -1, BOTH, (400,), ()),
    ("n", 10**9, BOTH, (400,), ("CVE-2026-34756",)),
    ("n", HUGE, BOTH, (400,), ("CVE-2026-34756",)),
    ("n", 1.5, BOTH, (400,), ()),
    ("n", "2", BOTH, EITHER, ()),
    ("best_of", 10**9, BOTH, (400,), ("CVE-2024-8939",)),
    ("max_tokens", -1, BOTH, (400,), ()),
    ("max_tokens", 1.5, BOTH, (400,), ()),
    ("max_tokens", "many", BOTH, (400,), ()),
    ("max_tokens", HUGE, BOTH, (400,), ()),
    ("max_tokens", 10**9, BOTH, (400,), ()),
    ("max_tokens", 0, ("/v1/chat/completions",), (400,), ("CVE-2026-93436",)),
    ("max_tokens", 0, ("/v1/completions",), EITHER, ("CVE-2026-93436",)),
    ("max_tokens", 10**400, BOTH, (400,), ()),
    ("min_tokens", -1, BOTH, (400,), ()),
    ("min_tokens", 10**9, BOTH, (400,), ("CVE-2026-114051",)),
    ("min_tokens", "x", BOTH, (400,), ()),
    ("presence_penalty", 3, BOTH, (400,), ()),
    ("presence_penalty", "x", BOTH, (400,), ()),
    ("frequency_penalty", -3, BOTH, (400,), ()),
    ("repetition_penalty", 0, BOTH, (400,), ()),
    ("repetition_penalty", -1, BOTH, (400,), ()),
    ("repetition_penalty", 1e38, BOTH, EITHER, ()),
    ("seed", "x", BOTH, (400,), ()),
    ("seed", 1.5, BOTH, (400,), ()),
    ("seed", 2**200, BOTH, (400,), ()),
    ("stop", [""], BOTH, EITHER, ()),
    ("stop", 1, BOTH, (400,), ()),
    ("stop", [None], BOTH, (400,), ()),
    ("stop", {"a": 1}, BOTH, (400,), ()),
    ("stop", ["x"] * 10_000, BOTH, (400,), ()),
    ("stop", "x" * 1_000_000, BOTH, (400,), ()),
    ("stop_token_ids", [-1], BOTH, (400,), ()),
    ("stop_token_ids", ["x"], BOTH, (400,), ()),
    ("stop_token_ids", [2**40], BOTH, EITHER, ()),
    ("stop_token_ids", list(range(100_000)), BOTH, (400,), ()),
    ("logit_bias", {"abc": 1}, BOTH, (400,), ()),
    ("logit_bias", {"-5": 1}, BOTH, (400,), ()),
    ("logit_bias", {"999999999": 1}, BOTH, (400,), ("CVE-2026-93841",)),
    ("logit_bias", {"1": "x"}, BOTH, (400,), ()),
    ("logit_bias", [], BOTH, EITHER, ()),
    ("logit_bias", {"1": 1e300}, BOTH, EITHER, ()),
    ("logit_bias", {str(i): 1 for i in range(100_000)}, BOTH, (400,), ()),
    ("allowed_token_ids", [], BOTH, (400,), ()),
    ("allowed_token_ids", [-1], BOTH, (400,), ()),
    ("allowed_token_ids", [10**9], BOTH, (400,), ("CVE-2026-93840",)),
    ("allowed_token_ids", "x", BOTH, (400,), ()),
    ("bad_words", [1], BOTH, (400,), ()),
    ("bad_words", ["x"] * 10_000, BOTH, (400,), ("CVE-2026-93989",)),
    ("bad_words", ["\U0010ffff" * 64], BOTH, EITHER, ("CVE-2026-93989",)),
    ("truncate_prompt_tokens", -2, BOTH, (400,), ()),
    ("truncate_prompt_tokens", 10**9, BOTH, EITHER, ()),
    ("prompt_logprobs", -2, BOTH, (400,), ()),
    ("prompt_logprobs", 10**6, BOTH, (400,), ()),
    ("prompt_logprobs", "x", BOTH, (400,), ()),
    ("ignore_eos", "x", BOTH, (400,), ()),
    ("skip_special_tokens", 3, BOTH, EITHER, ()),
    ("stream", "sometimes", ALL, (400,), ()),
    ("stream", 17, ALL, (400,), ()),
    ("stream_options", {"include_usage": True}, BOTH, (400,), ()),  # without stream
    ("stream_options", 1, BOTH, (400,), ()),
    ("stream_options", {"include_usage": "x"}, BOTH, (400,), ()),
    ("model", 1, ALL, (400,), ()),
    ("model", "no-such-model", ALL, (404,), ()),
    ("model", "../../etc/passwd", ALL, (404,), ("CVE-2026-7302",)),
    ("model", "x" * 100_000, ALL, (400, 404), ()),
    ("model", [], ALL, (400,), ()),
    ("user", 1, BOTH, EITHER, ()),
    ("user", "\ud800", BOTH, EITHER, ()),
    ("priority", "x", BOTH, (400,), ()),
    ("priority", 2**70, BOTH, (400,), ()),
    ("cache_salt", "x" * 10_000, BOTH, (400,), ("GHSA-wpww-v874-ph2p",)),
    ("cache_salt", "", BOTH, EITHER, ()),
    ("cache_salt", 1, BOTH, (400,), ()),
    ("cache_salt", "a/b\n\x00*", BOTH, EITHER, ("CVE-2026-105756",)),
    ("request_id", "../../x\r\nSet-Cookie: a=b", BOTH, EITHER, ("CVE-2026-105755",)),
    ("request_id", 1, BOTH, (400,), ()),
    ("kv_transfer_params", {"do_remote_prefill": True}, BOTH, EITHER, ("CVE-2026-94622",)),
    ("kv_transfer_params", {"tp_size": 10**9, "remote_host": "10.0.0.1"}, BOTH, EITHER, ("CVE-2026-94626",)),
    ("vllm_xargs", {"a": {"b": [1] * 100_000}}, BOTH, (400,), ()),
    ("vllm_xargs", "x", BOTH, (400,), ()),
    ("thinking_token_budget", -5, ("/v1/chat/completions",), EITHER, ("GHSA-fpch-3xrf-7q96",)),
    ("logits_processors", ["os.system"], BOTH, (400,), ("CVE-2026-7304",)),
    ("__proto__", {"x": 1}, ALL, (400,), ()),
    ("__class__", "x", ALL, (400,), ()),
    ("use_beam_search", True, BOTH, (400,), ()),
    ("max_output_tokens", -1, ("/v1/responses",), (400,), ()),
    ("max_output_tokens", "x", ("/v1/responses",), (400,), ()),
    ("max_output_tokens", 10**9, ("/v1/responses",), EITHER, ()),
    ("max_output_tokens", HUGE, ("/v1/responses",), (400,), ()),
    ("max_tokens", 0, ("/v1/messages",), (400,), ()),
    ("max_tokens", -1, ("/v1/messages",), (400,), ()),
    ("max_tokens", HUGE, ("/v1/messages",), (400,), ()),
    ("max_tokens", "x", ("/v1/messages",), (400,), ()),
    ("top_k", -2, ("/v1/messages",), (400,), ()),
    ("top_k", "x", ("/v1/messages",), (400,), ()),
    ("stop_sequences", [1], ("/v1/messages",), (400,), ()),
    ("stop_sequences", ["x"] * 10_000, ("/v1/messages",), (400,), ()),
)


def cases(model: str) -> list[Case]:
    bodies = good(model)
    found = []
    for number, (field, value, routes, want, cve) in enumerate(TABLE):
        for route in routes:
            name = f"{number:03d} {route.removeprefix('/v1/')}: {field}={value!r:.40}"
            found.append(case("field", name, route, {**bodies[route], field: value}, want, cve=cve))
    return found + _together(model)


def _together(model: str) -> list[Case]:
    """Fields that are each well alone."""
    found = []
    for route in BOTH:
        body = good(model)[route]
        short = route.removeprefix("/v1/")

        def of(name: str, want: tuple[int, ...] = (400,), /, **fields: Any) -> Case:
            cve = fields.pop("cve", ())
            return case("together", f"{short}: {name}", route, {**body, **fields}, want, cve=cve)  # noqa: B023

        found += [
            of("min_tokens above max_tokens", min_tokens=5, max_tokens=2),
            of("huge min_tokens, no max_tokens", min_tokens=10**9, max_tokens=None, cve=("CVE-2026-114051",)),
            of("a stream with prompt_logprobs", stream=True, prompt_logprobs=1),
            of("n with best_of below it", n=3, best_of=2),
            of("several greedy answers", (200, 400), n=3, temperature=0),
            of("every limit at once", n=129, max_tokens=HUGE, stop=["x"] * 999, logit_bias={"a": "b"}),
            of("a repeated prompt with penalties", OK, repetition_penalty=1.3, presence_penalty=1,
               frequency_penalty=-1, cve=("CVE-2026-44223", "CVE-2026-105775")),
            of("prompt log-probabilities of a cached beginning, once", OK, prompt_logprobs=1,
               cve=("CVE-2026-116180",)),
            of("prompt log-probabilities of a cached beginning, again", OK, prompt_logprobs=1,
               cve=("CVE-2026-116180",)),
        ]  # fmt: skip
    return found
