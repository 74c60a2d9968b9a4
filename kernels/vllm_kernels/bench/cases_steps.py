"""What a step does around the model: inputs, drawing tokens, edits, penalties, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch

from vllm_core import ops
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_kernels.bench.case import Call, Case
from vllm_kernels.bench.cases_elementwise import kernel
from vllm_kernels.sampling import Sampler

LINES = (1, 32, 256)
VOCABS = (151936, 128256)
ROWS, ROOM, BLOCKS, BLOCK = 257, 8200, 513, 16
ALL = "min-p 0.05, top-k 50, top-p 0.9"
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {},
    "top-k 50": {"top_k": 50},
    "top-p 0.9": {"top_p": 0.9},
    ALL: {"top_k": 50, "top_p": 0.9, "min_p": 0.05},
}


def cases() -> Iterator[Case]:
    for vocab in VOCABS:
        for lines in LINES:
            shape, size = f"N={lines} V={vocab}", 2 * lines * vocab
            for name in ASKED:
                make = partial(_draw, lines, vocab, name)
                yield Case(kernel="sample", shape=f"{shape} {name}", dtype="bfloat16", make=make, bytes=size)
            make, size_of_both = partial(_draw, lines, vocab, ALL, probs=True), size + 4 * lines * vocab
            yield Case(kernel="probabilities", shape=shape, dtype="bfloat16", make=make, bytes=size_of_both)
            yield _op("argmax", shape, size, partial(_logits, lines, vocab))
            yield _op("token_logprobs", shape, size, partial(_scored, lines, vocab))
    for lines in LINES:
        # Tokens of the sequence once for each part of the vocabulary would be 10 times as much; they lie in the cache.
        yield _op("penalize", f"N={lines} V=151936 L=1000", lines * 1000 * 12, partial(_penalized, lines, 151936, 1000))
        inputs = partial(_masked, lines, 151936)
        yield _op("apply_token_bitmask", f"N={lines} V=151936", lines * 151936 * 4, inputs, dtype="float32")
        for asked, count in (("allowed", 8 * 151936), ("words", 700), ("stops", 100), ("bias", 200)):
            inputs = partial(_edited, lines, 151936, asked)
            yield _op("edit_logits", f"N={lines} V=151936 {asked}", lines * count, inputs, dtype="float32")
        for name, count in (
            ("step_inputs", 40),
            ("page_slots", 8 * BLOCKS),
            ("sampling_rows", 72),
            ("commit_tokens", 60),
        ):
            yield _op(name, f"S={lines}", lines * count, partial(_step, name, lines))


def _op(name: str, shape: str, size: int, inputs: Callable[[], Any], dtype: str = "bfloat16") -> Case:
    """``inputs``: of positions, or by name."""

    def call(run: Callable[[], Any]) -> Call:
        given = inputs()
        return partial(run(), **given) if isinstance(given, dict) else partial(run(), *given)

    return Case(
        kernel=name,
        shape=shape,
        dtype=dtype,
        make=partial(call, partial(_kernel, name)),
        reference=partial(call, lambda: getattr(ops, name)),
        bytes=size,
    )


@cache
def _kernel(name: str) -> Any:
    return kernel(name)


@cache
def _sampler() -> Sampler:
    return Sampler(None)  # type: ignore[arg-type]


def _peaked(lines: int, vocab: int) -> torch.Tensor:
    """A trained model's: a dozen tokens stand out."""
    logits = torch.randn(lines, vocab, device="cuda") * 2
    logits[:, 1000:1012] += torch.randn(lines, 12, device="cuda") * 2 + 20
    return logits.bfloat16()


def _draw(lines: int, vocab: int, name: str, probs: bool = False) -> Call:
    asked = ASKED[name]

    def column(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.full((lines,), value, dtype=dtype, device="cuda")

    params = SamplingTensors(
        temperature=column(asked.get("temperature", 0.8)),
        top_k=column(asked.get("top_k", 0), torch.int64),
        top_p=column(asked.get("top_p", 1.0)),
        min_p=column(asked.get("min_p", 0.0)),
        noise=torch.rand(lines, dtype=torch.float64, device="cuda"),
        any_greedy=name == "greedy",
        any_random=name != "greedy",
        largest_top_k=asked.get("top_k", 0),
        any_top_p="top_p" in asked,
        any_min_p="min_p" in asked,
    )
    return partial(_sampler().probs if probs else _sampler(), _peaked(lines, vocab), params)


def _logits(lines: int, vocab: int) -> tuple[Any, ...]:
    return (_peaked(lines, vocab),)


def _scored(lines: int, vocab: int) -> tuple[Any, ...]:
    return _peaked(lines, vocab), torch.randint(0, vocab, (lines,), device="cuda")


def _penalized(lines: int, vocab: int, length: int) -> tuple[Any, ...]:
    rows = torch.arange(lines, device="cuda")
    tokens = torch.randint(0, 3000, (lines, length), dtype=torch.int32, device="cuda")
    factor = torch.full((lines,), 1.1, device="cuda")
    prompt = torch.full_like(rows, length // 3)
    ends = torch.full_like(rows, length)
    return torch.randn(lines, vocab, device="cuda"), rows, rows, ends, tokens, prompt, factor, factor, factor


def _edited(lines: int, vocab: int, asked: str) -> dict[str, Any]:
    """Every line asks for one thing: 1,000 allowed tokens, 16 bad words of 4, 4 stops or 16 biases."""
    rows = torch.arange(lines, device="cuda")
    tokens = torch.randint(0, 3000, (lines, 1000), dtype=torch.int32, device="cuda")
    ends, ids = torch.full_like(rows, 1000), torch.randint(0, vocab, (lines, 64), device="cuda")
    given = {"lines": rows, "rows": rows, "ends": ends, "tokens": tokens, "prompt_len": ends // 3}
    if asked == "allowed":
        keep = torch.zeros(lines, vocab, dtype=torch.bool, device="cuda")
        keep.scatter_(1, torch.randint(0, vocab, (lines, 1000), device="cuda"), True)
        given |= {"restricts": torch.ones_like(rows, dtype=torch.bool), "keep": keep}
    elif asked == "words":
        ids[:, 0::4], ids[:, 1::4] = -1, tokens[:, -2:-1]
        ids[:, 2::4] = tokens[:, -1:]
        given |= {"words": ids, "word_length": 4}
    elif asked == "stops":
        given |= {"min_end": ends + 1, "stops": ids[:, :4].contiguous()}
    else:
        own = ids[:, :16].sort(1).values.contiguous()
        given |= {"bias_ids": own, "bias": torch.ones_like(own, dtype=torch.float64)}
    return {"logits": torch.randn(lines, vocab, device="cuda"), **given}


def _masked(lines: int, vocab: int) -> tuple[Any, ...]:
    """No token may come: all of the logits are written."""
    masks = torch.zeros(lines, -(-vocab // 32), dtype=torch.int32, device="cuda")
    return torch.randn(lines, vocab, device="cuda"), torch.arange(lines, device="cuda"), masks


def _step(name: str, sequences: int) -> tuple[Any, ...]:
    token_ids = torch.randint(0, 1000, (ROWS, ROOM), dtype=torch.int32, device="cuda")
    known = torch.randint(1, 8000, (ROWS,), dtype=torch.int32, device="cuda")
    rows = torch.randperm(ROWS, device="cuda")[:sequences]
    line = torch.arange(sequences, device="cuda")
    ones, starts = torch.ones_like(line), torch.arange(sequences + 1, device="cuda")
    if name == "step_inputs":
        return token_ids, known, rows, starts, sequences
    if name == "page_slots":
        table = torch.randint(1, 9000, (ROWS, BLOCKS + 1), dtype=torch.int32, device="cuda")
        return table, rows, line, known[rows].long(), BLOCK, BLOCKS
    if name == "sampling_rows":
        rate, top_k = torch.rand(ROWS, device="cuda"), torch.zeros(ROWS, dtype=torch.int64, device="cuda")
        return rate, top_k, rate, rate, top_k, rows, known[rows].long(), 0
    result = torch.empty(sequences, 1, dtype=torch.int32, device="cuda")
    # Nothing is emitted, so that the rows stay where they are however often it runs.
    return token_ids, known, known.clone(), rows, 0 * ones, line, line[:, None], 0 * ones, result, 0 * ones
