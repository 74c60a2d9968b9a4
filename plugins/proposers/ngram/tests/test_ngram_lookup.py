"""The lookup against plain Python, its configuration, and that nothing waits for the device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from vllm_plugin_ngram import draft_proposer
from vllm_plugin_ngram.lookup import PromptLookup

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.proposer import RowView
from vllm_core.interfaces.queries import ProposerQuery
from vllm_core.plugin import Offer, Refusal, load_target


def ask(**config):
    return draft_proposer(
        ProposerQuery(method="ngram", num_drafts=3, architecture="X", config=config, device=Device("cpu"))
    )


def make(num_drafts, longest, shortest):
    return PromptLookup(num_drafts, {"prompt_lookup_max": longest, "prompt_lookup_min": shortest})


def propose(lookup, sequences, room, rows=None, junk=0):
    """Drafts of rows that stand in a shuffled order among others; beyond each one's tokens is ``junk``."""
    order = list(rows or reversed(range(len(sequences))))
    ids = torch.full((len(sequences) + 2, room), junk, dtype=torch.int32)
    lengths = torch.ones(len(sequences) + 2, dtype=torch.int32)
    for sequence, row in zip(sequences, order, strict=True):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.int32)
        lengths[row] = len(sequence)
    drafts = lookup.propose(torch.tensor(order), RowView(token_ids=ids, num_tokens=lengths), None, {})
    assert (drafts.ids.dtype, drafts.probs, drafts.parents) == (torch.int32, None, None)
    return drafts.ids.tolist()


def plain(sequence, num_drafts, longest, shortest):
    """The longest match first, of equals the first one in the sequence."""
    for n in range(longest, shortest - 1, -1):
        for start in range(len(sequence) - n):
            if sequence[start : start + n] == sequence[len(sequence) - n :]:
                found = sequence[start + n : start + n + num_drafts]
                return found + [-1] * (num_drafts - len(found))
    return [-1] * num_drafts


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=24), min_size=1, max_size=5),
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.integers(0, 6), st.integers(0, 3),
)  # fmt: skip
def test_every_row_gets_what_plain_python_finds(sequences, num_drafts, shortest, wider, spare, junk):
    longest = shortest + wider
    room = max(map(len, sequences)) + spare
    got = propose(make(num_drafts, longest, shortest), sequences, room, junk=junk)
    assert got == [plain(sequence, num_drafts, longest, shortest) for sequence in sequences]


@pytest.mark.parametrize(
    ("sequence", "longest", "shortest", "want"),
    [
        ([1, 2, 3, 4, 2, 3], 3, 2, [4, 2, 3]),
        ([1, 2, 3, 4, 2, 3], 3, 3, [-1, -1, -1]),
        ([7, 1, 8, 7, 1, 9, 5, 7, 1], 2, 1, [8, 7, 1]),  # the first of two
        ([1, 8, 7, 1, 9, 5, 7, 1], 3, 1, [9, 5, 7]),  # the longer one, not the first
        ([5, 5, 5, 5], 2, 1, [5, 5, -1]),  # overlapping; nothing is known beyond the last token
        ([4], 1, 1, [-1, -1, -1]),
        ([4, 4], 64, 1, [4, -1, -1]),
    ],
)
def test_known_cases(sequence, longest, shortest, want):
    assert propose(make(3, longest, shortest), [sequence], 9) == [want]


def test_it_reads_no_value_on_the_host_and_does_the_same_for_2_rows_and_40():
    ops = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            ops.append(str(func))
            return func(*args, **(kwargs or {}))

    counts = []
    for rows in (2, 40):
        ids, lengths = torch.zeros(rows, 50, dtype=torch.int32), torch.full((rows,), 9, dtype=torch.int32)
        chosen, lookup = torch.arange(rows), make(4, 5, 2)
        ops.clear()
        with Watch():
            lookup.propose(chosen, RowView(token_ids=ids, num_tokens=lengths), None, {})
        assert not [op for op in ops if "_local_scalar_dense" in op or "nonzero" in op]
        counts.append(len(ops))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("config", "longest", "shortest"),
    [
        ({}, 5, 5),
        ({"prompt_lookup_max": 4}, 4, 4),
        ({"prompt_lookup_min": 2}, 2, 2),
        ({"prompt_lookup_max": 4, "prompt_lookup_min": 1}, 4, 1),
    ],
)
def test_lengths_left_out_are_those_of_vllm(config, longest, shortest):
    offer = ask(**config)
    assert isinstance(offer, Offer)
    made = load_target(offer.target)(3, {**offer.options, **config})
    assert (made.longest, made.shortest, made.num_drafts) == (longest, shortest, 3)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"prompt_lookup_mx": 3}, "'prompt_lookup_mx', which this method does not read; did you mean 'prompt_lookup_m"),
        ({"model": "x"}, "'model', which this method does not read; it has 'prompt_lookup_max' and"),
        ({"prompt_lookup_max": 0}, "'prompt_lookup_max' must be a whole number from 1 to 64, not 0"),
        ({"prompt_lookup_min": 65}, "'prompt_lookup_min' must be a whole number from 1 to 64, not 65"),
        ({"prompt_lookup_max": True}, "must be a whole number from 1 to 64, not True"),
        ({"prompt_lookup_max": "3"}, "must be a whole number from 1 to 64, not '3'"),
        ({"prompt_lookup_max": 2, "prompt_lookup_min": 3}, "'prompt_lookup_min', 3, is above 'prompt_lookup_max', 2"),
    ],
)
def test_wrong_keys_are_refused_by_name(config, words):
    answer = ask(**config)
    assert isinstance(answer, Refusal)
    assert words in answer.reason
    assert '"num_speculative_tokens": 3, "prompt_lookup_max": 5' in answer.remedy


def test_other_methods_are_left_to_others():
    query = ProposerQuery(method="suffix", num_drafts=3, architecture="X", config={}, device=Device("cpu"))
    assert draft_proposer(query) is None
