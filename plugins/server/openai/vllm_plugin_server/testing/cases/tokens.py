"""Prompts of completions, and /tokenize with /detokenize: ids out of range, lists of the wrong things, much of them."""

from __future__ import annotations

from typing import Any

from vllm_plugin_server.testing.case import OK, Case, case
from vllm_plugin_server.testing.cases.good import good

__all__ = ["cases"]

# (name, prompt, what may be answered, advisories)
PROMPTS: tuple[tuple[str, Any, tuple[int, ...], tuple[str, ...]], ...] = (
    ("null", None, (400,), ()),
    ("a number", 1.5, (400,), ()),
    ("a flag", True, (400,), ()),
    ("an object", {}, (400,), ()),
    ("an object with text", {"text": "x"}, (400,), ()),
    ("empty text", "", (200, 400), ("CVE-2024-8768",)),
    ("an empty list", [], (400,), ("CVE-2024-8768",)),
    ("a list of an empty list", [[]], (400,), ("CVE-2024-8768",)),
    ("a list of an empty text", [""], (200, 400), ("CVE-2024-8768",)),
    ("a negative id", [-1], (400,), ("CVE-2026-93592",)),
    ("a negative id in a batch", [[1], [-1]], (400,), ("CVE-2026-93592",)),
    ("an id past the vocabulary", [10**9], (400,), ("CVE-2026-93841",)),
    ("an id past 64 bits", [2**63], (400,), ()),
    ("an id past 64 bits by far", [10**60], (400,), ()),
    ("ids that are no whole numbers", [1.5], (400,), ()),
    ("flags for ids", [True, False], (400,), ()),
    ("text among ids", ["a", 1], (400,), ()),
    ("ids among text", [1, "a"], (400,), ()),
    ("texts and lists", ["a", [1]], (400,), ()),
    ("nested lists", [[[1]]], (400,), ()),
    ("nulls", [None], (400,), ()),
    ("100,000 prompts", ["x"] * 100_000, (400,), ("CVE-2026-73559", "CVE-2026-94623")),
    ("100,000 lists of ids", [[1]] * 100_000, (400,), ("CVE-2026-73559",)),
    ("a prompt of 1,000,000 characters", "word " * 200_000, (400,), ()),
    ("a prompt of 10,000,000 characters", "a" * 10_000_000, (400, 413), ()),
    ("1,000,000 ids", [1] * 1_000_000, (400,), ()),
    ("half a surrogate pair", "\ud83d", (200, 400), ()),
    ("a NUL", "a\x00b", OK, ()),
    ("combining marks", "a" + "\u0301" * 2000, (200, 400), ()),
    ("names of special tokens", "<|im_start|><|endoftext|><image><|image|>", OK, ("CVE-2026-44222",)),
    ("many placeholders of images", "<|image|>" * 300, (200, 400), ("CVE-2025-46560",)),
)


def cases(model: str) -> list[Case]:
    bodies = good(model)
    completion = bodies["/v1/completions"]
    found = [
        case("prompt", name, "/v1/completions", {**completion, "prompt": prompt}, want, cve=cve)
        for name, prompt, want, cve in PROMPTS
    ]
    without = {k: v for k, v in completion.items() if k != "prompt"}
    found += [
        case("prompt", name, "/v1/completions", body, want, cve=cve)
        for name, body, want, cve in (
            ("none at all", without, (400,), ()),
            ("embeddings", without | {"prompt_embeds": "AAAA"}, (400,), ("CVE-2025-62164",)),
            ("two embeddings", without | {"prompt_embeds": ["AAAA", "AAAA"]}, (400,), ("CVE-2026-73557",)),
            ("text and embeddings", completion | {"prompt_embeds": "gASVAAAA"}, (400,), ("CVE-2026-56340",)),
            ("a suffix", completion | {"suffix": "x"}, (400,), ()),
            ("echo that is no flag", completion | {"echo": "x"}, (400,), ()),
            ("log-probabilities of all tokens", completion | {"logprobs": 10**6}, (400,), ("CVE-2026-116173",)),
            ("log-probabilities of -2 tokens", completion | {"logprobs": -2}, (400,), ()),
            ("log-probabilities as text", completion | {"logprobs": "x"}, (400,), ()),
            ("a file for a prompt", without | {"prompt": {"file": "/etc/passwd"}}, (400,), ()),
        )
    ]
    return found + _tokenize(model) + _detokenize(model)


def _tokenize(model: str) -> list[Case]:
    def of(name: str, want: tuple[int, ...], /, **fields: Any) -> Case:
        cve = fields.pop("cve", ())
        return case("tokenize", name, "/tokenize", {"model": model, **fields}, want, cve=cve)

    talk = [{"role": "user", "content": "Hi"}]
    return [
        of("nothing", (400,)),
        of("a number", (400,), prompt=1),
        of("null", (400,), prompt=None),
        of("a list", (400,), prompt=["a"]),
        of("both", (200, 400), prompt="a", messages=talk),
        of("an unknown model", (404,), prompt="a", model="no-such-model"),
        of("messages that are none", (400,), messages=[1]),
        of("no messages", (400,), messages=[]),
        of("a template of the client", (400,), messages=talk, chat_template="{% for i in range(10**9) %}{% endfor %}",
           cve=("CVE-2025-61620",)),
        of("20,000,000 characters", (200, 400, 413), prompt="ab " * 6_666_667),
        of("40 MB", (413,), prompt="a" * 40_000_000),
        of("half a surrogate pair", (200, 400), prompt="\udc00"),
        of("add_special_tokens that is no flag", (400,), prompt="a", add_special_tokens="x"),
        of("return_token_strs that is no flag", (400,), prompt="a", return_token_strs=[1]),
        of("empty text", (200,), prompt=""),
    ]  # fmt: skip


def _detokenize(model: str) -> list[Case]:
    def of(name: str, tokens: Any, want: tuple[int, ...] = (400,), cve: tuple[str, ...] = ()) -> Case:
        return case("detokenize", name, "/detokenize", {"model": model, "tokens": tokens}, want, cve=cve)

    return [
        of("null", None),
        of("text", "x"),
        of("a negative id", [-1], cve=("CVE-2026-71486", "CVE-2026-93592")),
        of("an id past the vocabulary", [10**9]),
        of("an id past 64 bits", [2**64]),
        of("ids that are no whole numbers", [1.5]),
        of("flags", [True]),
        of("texts", ["x"]),
        of("nested", [[1]]),
        of("5,000,000 ids", [1] * 5_000_000, (200, 400, 413), ("CVE-2026-71486",)),
        of("none", [], OK),
        case("detokenize", "no tokens", "/detokenize", {"model": model}),
    ]
