"""Which drafts stand, and what the step emits: speculative decoding that changes no distribution.

Drafts without probabilities: the target's token is drawn at every position with that position's
own noise, and drafts are accepted while they equal it. The tokens are those of plain decoding.

Drafts drawn from probabilities q: draft d is accepted with probability min(1, p(d) / q(d)); the
first rejected one is replaced by a draw from max(p - q, 0), normalised (arXiv 2211.17192, 2302.01318).
"""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.proposer import Drafts
from vllm_core.interfaces.sampler import Sampler, SamplingTensors
from vllm_core.ops.sampler import draw
from vllm_core.runner.inputs import Inputs
from vllm_core.runner.noise import ACCEPT, SAMPLE, uniform
from vllm_core.runner.rows import Rows
from vllm_core.runner.step_ops import StepOps


@attrs.frozen
class Emitted:
    token_ids: Tensor  # int64 [N, 1 + D], D the most drafts of a row in this step; -1 after the last
    accepted: Tensor  # int64 [N], drafts that stand; one more token is emitted


def verify(logits: Tensor, inputs: Inputs, rows: Rows, sampler: Sampler) -> Emitted:
    """Draw and verify from logits [M, V]; changes nothing. No host synchronisation on accelerators."""
    params = sampling_tensors(rows, inputs.ops, inputs.logits_rows, inputs.sampling_rows_host, inputs.logits_ends)
    if inputs.max_drafts == 0:
        token_ids = sampler(logits, params).long()[:, None]
        return Emitted(token_ids, torch.zeros_like(inputs.sampling_rows))

    drafts = _drafts(inputs, rows)  # [N, 1 + D]
    guesses = drafts.view(-1).index_select(0, inputs.logits_slots)  # [M]
    if rows.draft_probs is None:
        target = sampler(logits, params).long()
        accepted = _prefix(guesses == target, drafts, inputs)
        last = target.index_select(0, inputs.logits_first + accepted)
    else:
        p = sampler.probs(logits, params)
        vocab = p.shape[-1]
        q = rows.draft_probs.view(-1, vocab)
        width = drafts.shape[1]
        at = inputs.logits_rows * rows.num_drafts + (inputs.logits_slots % width).clamp_max(rows.num_drafts - 1)
        guess = guesses.clamp_min(0)
        ratio_p = p.gather(1, guess[:, None])[:, 0]
        ratio_q = q.view(-1).index_select(0, at * vocab + guess)
        seeds = rows.seed.index_select(0, inputs.logits_rows)
        stands = (guesses >= 0) & (uniform(seeds, inputs.logits_ends, ACCEPT) * ratio_q < ratio_p)
        accepted = _prefix(stands, drafts, inputs)
        final = inputs.logits_first + accepted
        p_last, q_last = p.index_select(0, final), q.index_select(0, at.index_select(0, final))
        rest = (p_last - q_last).clamp_min_(0)
        # No guess stood here to be rejected, or rounding left nothing of p - q: draw from p itself.
        plain = (guesses.index_select(0, final) < 0) | (rest.sum(-1) == 0)
        last = draw(torch.where(plain[:, None], p_last, rest), params.noise.index_select(0, final))

    column = torch.arange(drafts.shape[1], device=drafts.device)
    token_ids = torch.where(column < accepted[:, None], drafts, -1)
    return Emitted(token_ids.scatter_(1, accepted[:, None], last[:, None]), accepted)


def sampling_tensors(
    rows: Rows, ops: StepOps, lines: Tensor, which: np.ndarray, ends: Tensor, stream: int = SAMPLE
) -> SamplingTensors:
    """The rows' parameters, a line of logits each.

    lines, ends   int64 [M], of each line the row, and the tokens before the one that is drawn
    which         rows that occur in ``lines``, as the host knows them
    stream        what the noise is for
    """
    greedy = rows.host_greedy[which]
    random = which[~greedy]
    parameters = (rows.temperature, rows.top_k, rows.top_p, rows.min_p)
    if len(random):
        temperature, top_k, top_p, min_p, noise = ops.sampling_rows(*parameters, rows.seed, lines, ends, stream)
    else:  # nobody reads the noise, which takes a CPU longer than all the rest
        temperature, top_k, top_p, min_p = (parameter.index_select(0, lines) for parameter in parameters)
        noise = torch.zeros_like(ends, dtype=torch.float64)
    return SamplingTensors(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        noise=noise,
        any_greedy=bool(greedy.any()),
        any_random=len(random) > 0,
        largest_top_k=int(rows.host_top_k[random].max(initial=0)),
        any_top_p=bool(rows.host_top_p[random].any()),
        any_min_p=bool(rows.host_min_p[random].any()),
    )


def _drafts(inputs: Inputs, rows: Rows) -> Tensor:
    """int64 [N, 1 + D]: the drafts this step verifies; -1 where a row has none, and in the last column."""
    column = torch.arange(1 + inputs.max_drafts, device=rows.device)
    at = inputs.sampling_rows * rows.room + rows.num_tokens.index_select(0, inputs.sampling_rows)
    drafts = rows.token_ids.view(-1).index_select(0, (at[:, None] + column).view(-1)).view(len(at), -1)
    return torch.where(column < inputs.num_drafts[:, None], drafts.long(), -1)


def _prefix(stands: Tensor, drafts: Tensor, inputs: Inputs) -> Tensor:
    """int64 [N]: how many drafts of each row stand before the first that does not; stands is bool [M]."""
    matrix = torch.zeros(drafts.numel(), dtype=torch.int64, device=drafts.device)
    matrix.index_copy_(0, inputs.logits_slots, stands.long())
    return matrix.view_as(drafts)[:, :-1].cumprod(1).sum(1)


def advance(rows: Rows, inputs: Inputs, emitted: Emitted | None, result: Tensor | None) -> None:
    """Move the rows past this step. Cache entries of rejected drafts are overwritten by the next one.

    result   int32 [S, 1 + K], filled with what each sequence emitted, -1 behind it; not read where nothing was
    """
    if emitted is None:
        rows.num_computed.index_add_(0, inputs.rows, inputs.advance.int())
        return
    inputs.ops.commit_tokens(
        rows.token_ids,
        rows.num_tokens,
        rows.num_computed,
        inputs.rows,
        inputs.advance,
        inputs.sampling,
        emitted.token_ids,
        emitted.accepted,
        result,
    )


def write_drafts(rows: Rows, which: Tensor, drafts: Drafts, vocab: int) -> None:
    """Put the next step's drafts after the known tokens of rows ``which`` (int64 [N])."""
    expected = (len(which), rows.num_drafts)
    if tuple(drafts.ids.shape) != expected:
        raise ValueError(f"a proposer must return ids of shape {expected}, not {tuple(drafts.ids.shape)}")
    if drafts.parents is not None:
        raise ValueError("a proposer returned a tree of drafts (parents), and this core verifies chains only")
    if drafts.probs is not None:
        if tuple(drafts.probs.shape) != (*expected, vocab):
            raise ValueError(f"draft probabilities must be {(*expected, vocab)}, not {tuple(drafts.probs.shape)}")
        if rows.draft_probs is None:
            shape = (rows.num_rows, rows.num_drafts, vocab)
            rows.draft_probs = torch.zeros(shape, dtype=torch.float32, device=rows.device)
        rows.draft_probs.index_copy_(0, which, drafts.probs.float())
    elif rows.draft_probs is not None:
        raise ValueError("a proposer returned drafts without probabilities, having returned some with them before")
    columns = torch.arange(rows.num_drafts, device=rows.device)
    at = which * rows.room + rows.num_tokens.index_select(0, which)
    rows.token_ids.view(-1).index_copy_(0, (at[:, None] + columns).view(-1), drafts.ids.reshape(-1).int())
