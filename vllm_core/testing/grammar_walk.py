"""Masks as sets of ids, and random walks through them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from vllm_core.interfaces.grammar import Grammar, Vocabulary

__all__ = ["allowed", "assert_mask", "feed", "fill", "walk"]

LONGEST = 400  # ids of a walk
CLOSING = frozenset(b'"}])>.!x10a ')  # bytes that ends of texts are made of
PATIENCE = 25  # ids, before a walk looks for its end


def fill(grammar: Grammar, vocabulary: Vocabulary) -> np.ndarray:
    """The mask: int32 [words]."""
    mask = np.full(vocabulary.words, 0x55555555, dtype=np.int32)
    grammar.fill(mask)
    return mask


def ids_of(mask: np.ndarray) -> set[int]:
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return {*np.flatnonzero(bits).tolist()}


def allowed(grammar: Grammar, vocabulary: Vocabulary) -> set[int]:
    """The ids that its mask allows; all of them are tokens that may stand in a text, or end it."""
    found = ids_of(fill(grammar, vocabulary))
    stops = {*vocabulary.stop_ids}
    wrong = [i for i in found if i not in stops and (i >= vocabulary.size or not vocabulary.token_bytes[i])]
    assert not wrong, f"ids {sorted(wrong)[:5]} are allowed, which are special, unused or beyond the vocabulary"
    assert not found & stops or stops <= found, "one end of text is allowed and another one is not"
    return found


def feed(grammar: Grammar, vocabulary: Vocabulary, ids: Sequence[int]) -> int:
    """Accept ids one by one; how many masks allowed. Masks and ``accept`` must agree."""
    for i, token in enumerate(ids):
        may = token in allowed(grammar, vocabulary)
        taken = grammar.accept([token])
        assert taken == may, f"id {token} behind {list(ids[:i])}: the mask says {may}, accept says {taken}"
        if not taken:
            return i
    return len(ids)


def walk(grammar: Grammar, vocabulary: Vocabulary, dice: random.Random) -> str | None:
    """A text of allowed tokens, up to a stop id; None if it does not end."""
    found = b""
    for step in range(LONGEST):
        assert not grammar.finished, f"{found!r} is finished without a stop id"
        may = allowed(grammar, vocabulary)
        assert may, f"behind {found!r} nothing is allowed"
        stops = may & {*vocabulary.stop_ids}
        if stops and (may == stops or dice.random() < (0.2 if step < PATIENCE else 0.9)):
            assert grammar.accept([dice.choice(sorted(stops))]) == 1
            assert grammar.finished
            return found.decode("utf-8", "replace")  # as detokenizers do
        going = sorted(may - stops)
        if step >= PATIENCE:  # short tokens of what ends are made of
            going = [i for i in going if vocabulary.token_bytes[i][0] in CLOSING] or going
            going = [i for i in going if vocabulary.token_bytes[i] in (b'"', b"}", b"]")] or going
        token = dice.choice(going)
        assert grammar.accept([token]) == 1, f"id {token} behind {found!r} is allowed and not accepted"
        found += vocabulary.token_bytes[token]
    return None


def assert_mask(grammar: Grammar, vocabulary: Vocabulary, what: str) -> None:
    """Every word is written, whatever was there; no word beside it is; nothing beyond the vocabulary is allowed."""
    words, masks = vocabulary.words, []
    for before in (0, -1, 0x12345678):
        room = np.full((3, words + 1), before, dtype=np.int32)
        grammar.fill(room[1, :words])
        assert (room[[0, 2]] == before).all(), f"{what}: other rows were written"
        assert room[1, words] == before, f"{what}: a word behind the mask was written"
        masks.append(room[1, :words].copy())
    assert all((mask == masks[0]).all() for mask in masks), f"{what}: the mask depends on what was there"
    beyond = {i for i in ids_of(masks[0]) if i >= vocabulary.size}
    assert not beyond, f"{what}: ids {sorted(beyond)[:5]} are beyond the vocabulary"
