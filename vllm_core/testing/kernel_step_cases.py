"""Ops of a step around the model. What they do is exact: the plain references of `vllm_core.ops` say what is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from vllm_core.ops import OPS
from vllm_core.testing.kernel_case import Call, OpCase, Want

ROWS, ROOM, VOCAB = 9, 40, 203  # requests, tokens of each, logits
BLOCK = 4  # tokens a page


def step_cases() -> Iterator[OpCase]:
    makers: dict[str, Callable[..., Call]] = {
        "step_inputs": _inputs,
        "page_slots": _slots,
        "sampling_rows": _sampling,
        "commit_tokens": _commit,
        "edit_logits": _edit,
        "penalize": _penalize,
        "apply_token_bitmask": _mask,
        "token_logprobs": _score,
    }
    for name, make in makers.items():
        shape = {"block_size": BLOCK} if name == "page_slots" else {}
        yield OpCase(op=name, name="usual", shape=shape, make=make, tokens=(1, 2, 7), typed=False)


def _exact(name: str, args: tuple[Any, ...], changes: tuple[int, ...] = (), **kwargs: Any) -> Call:
    """What the reference returns, and makes of the arguments ``changes``, on the CPU."""
    copies = [x.clone() if isinstance(x, Tensor) else x for x in args]
    returned = OPS[name].reference(*copies, **kwargs)
    found = () if returned is None else returned if isinstance(returned, tuple) else (returned,)
    return Call(
        args=args,
        kwargs=kwargs,
        wants=tuple(Want(value=x, dtype=x.dtype) for x in found),
        changes={i: Want(value=copies[i], dtype=copies[i].dtype) for i in changes},
    )


def _number(generator: Generator, low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape, generator=generator)


def _state(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """token_ids int32 [R, L] with drafts that have no guess, num_computed and num_tokens int32 [R]."""
    ids = _number(generator, 0, VOCAB, ROWS, ROOM).int()
    computed = _number(generator, 0, ROOM - 16, ROWS).int()
    known = computed + 1
    ids[::2, ROOM - 12 :] = -1
    return ids, computed, known


def _rows(generator: Generator, count: int) -> Tensor:
    return torch.randperm(ROWS, generator=generator)[:count]


def _inputs(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    ids, computed, _ = _state(generator)
    counts = _number(generator, 0, 6, tokens)  # some sequences have no token
    starts = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
    return _exact("step_inputs", (ids, computed, _rows(generator, tokens), starts, int(starts[-1])))


def _slots(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    blocks = ROOM // BLOCK
    table = _number(generator, 1, 99, ROWS, blocks + 1).int()
    table[:, -1] = 0
    sequence = _number(generator, 0, tokens, 3 * tokens).sort().values
    positions = _number(generator, 0, ROOM + 5, 3 * tokens)  # some lie past the last block
    return _exact("page_slots", (table, _rows(generator, tokens), sequence, positions, BLOCK, blocks - 2))


def _sampling(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    temperature, top_p, min_p = torch.rand(3, ROWS, generator=generator)
    top_k = _number(generator, 0, 50, ROWS)
    seed = _number(generator, -(2**62), 2**62, ROWS)
    rows = _number(generator, 0, ROWS, tokens)
    ends = _number(generator, 1, 1000, tokens)
    return _exact("sampling_rows", (temperature, top_k, top_p, min_p, seed, rows, ends, tokens % 3))


def _commit(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    ids, computed, known = _state(generator)
    drafts, count = 3, max(1, tokens - 1)
    rows, advance = _rows(generator, tokens), _number(generator, 0, 5, tokens)
    sampling = torch.randperm(tokens, generator=generator)[:count]
    accepted = _number(generator, 0, drafts + 1, count)
    emitted = _number(generator, 0, VOCAB, count, 1 + drafts)
    emitted[torch.arange(1 + drafts) > accepted[:, None]] = -1
    emits = None if tokens % 2 else torch.arange(count) % 3 != 1
    result = torch.zeros(tokens, 1 + drafts + 1, dtype=torch.int32)
    args = (ids, known, computed, rows, advance, sampling, emitted, accepted, result)
    return _exact("commit_tokens", args, changes=(0, 1, 2, 8), emits=emits)


def _lines(generator: Generator, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """lines, rows, ends [A]; tokens [R, L] and prompt_len [R] behind them."""
    ids, _, _ = _state(generator)
    lines = torch.randperm(tokens + 2, generator=generator)[:tokens].sort().values
    return lines, _rows(generator, tokens), _number(generator, 1, 25, tokens), ids, _number(generator, 1, 12, ROWS)


def _edit(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    lines, rows, ends, ids, prompt = _lines(generator, tokens)
    logits = torch.randn(tokens + 2, VOCAB, generator=generator).to(dtype)
    ids = ids % 5  # so that bad words occur
    words = _number(generator, 0, 5, ROWS, 6)
    words[1::3, ::2] = -1
    bias_ids = torch.stack([torch.randperm(VOCAB, generator=generator)[:4] for _ in range(ROWS)])
    bias_ids[::3, 2:] = -1
    bias_ids[1::3] = -1
    more = {
        "restricts": torch.arange(ROWS) % 2 == 0,
        "keep": torch.rand(ROWS, VOCAB, generator=generator) < 0.3,
        "words": words,
        "word_length": 2,
        "min_end": _number(generator, 0, 40, ROWS),
        "stops": torch.where(_number(generator, 0, 3, ROWS, 3) > 0, _number(generator, 0, VOCAB, ROWS, 3), -1),
        "bias_ids": bias_ids,
        "bias": 5 * torch.randn(ROWS, 4, generator=generator, dtype=torch.float64),
    }
    return _exact("edit_logits", (logits, lines, rows, ends, ids, prompt), changes=(0,), **more)


def _penalize(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    lines, rows, ends, ids, prompt = _lines(generator, tokens)
    logits = torch.randn(tokens + 2, VOCAB, generator=generator)
    ids[:, 5:] = ids[:, 5:] % 7  # tokens that are there several times
    ids[:, 0] = ids[:, 0].abs()
    penalties = [0.5 + torch.rand(ROWS, generator=generator) for _ in range(3)]
    args = (logits, lines, rows, ends, ids, prompt, *penalties)
    return _exact("penalize", args, changes=(0,), counting=tokens != 2)


def _mask(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    logits = torch.randn(tokens + 2, VOCAB, generator=generator)
    lines = torch.randperm(tokens + 2, generator=generator)[:tokens]
    masks = _number(generator, -(2**31), 2**31, tokens, -(-VOCAB // 32) + 1).int()
    return _exact("apply_token_bitmask", (logits, lines, masks), changes=(0,))


def _score(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    logits = (4 * torch.randn(tokens, VOCAB, generator=generator)).to(dtype)
    chosen = _number(generator, 0, VOCAB, tokens)
    chosen[-1] = -1
    scores = logits.double()
    own = scores.gather(1, chosen.clamp_min(0)[:, None])
    total = scores.logsumexp(-1)
    room = scores.abs().amax(-1) + 1
    ranks = ((scores > own).sum(-1) + 1).int()
    wants = (
        Want(value=own[:, 0] - total, room=room, dtype=torch.float32),
        Want(value=ranks, dtype=torch.int32),
        Want(value=total, room=room, dtype=torch.float32),
    )
    return Call(args=(logits, chosen), wants=wants)
