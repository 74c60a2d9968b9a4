"""A text in pieces: every way in which a stream may cut it. And how much work it makes."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

__all__ = [
    "Pieces",
    "TinyTokenizer",
    "by_tokens",
    "chunkings",
    "cuts",
    "in_two_and_in_characters",
    "mutants",
    "noise",
    "tiny_tokenizers",
    "work",
]

Pieces = list[tuple[str, list[int]]]
"""Text and token ids, as ``feed`` takes them."""

SHORT = 16  # characters; whether such a text is new makes no difference
CHUNKED = 9  # characters that are cut in all of the 2 ** 8 ways
MOST_CUTS = 600  # characters of a text that is cut at every place


def cuts(text: str, seed: int = 0) -> Iterator[Pieces]:
    """All cuts in two, character by character, and random ones, some with empty pieces."""
    rng = random.Random(f"{seed} {text}")
    places: Sequence[int] = range(len(text) + 1)
    if len(text) > MOST_CUTS:
        places = sorted(rng.sample(places, MOST_CUTS))
    for at in places:
        yield [(text[:at], []), (text[at:], [])]
    yield [(c, []) for c in text]
    for longest in (2, 3, 5, 12, 40):
        yield random_pieces(text, rng, longest)


def chunkings(text: str, marker: str) -> Iterator[Pieces]:
    """Every way to cut a text around the beginning and the end of a marker in it; the rest comes whole."""
    start = text.find(marker)
    if start < 0:
        return
    for first in {max(0, start - 1), max(0, start + len(marker) + 1 - CHUNKED)}:
        around = text[first : first + CHUNKED]
        for cut in range(1 << (len(around) - 1)):
            pieces, at = [text[:first]], 0
            for i in range(1, len(around) + 1):
                if i == len(around) or cut >> (i - 1) & 1:
                    pieces.append(around[at:i])
                    at = i
            yield [(piece, []) for piece in (*pieces, text[first + CHUNKED :])]


def in_two_and_in_characters(text: str, at: int) -> tuple[Pieces, Pieces]:
    return [(text[:at], []), (text[at:], [])], [(c, []) for c in text]


def random_pieces(text: str, rng: random.Random, longest: int) -> Pieces:
    pieces: Pieces = []
    at = 0
    while at < len(text):
        size = rng.randint(0, longest)
        pieces.append((text[at : at + size], []))
        at += size
    return pieces


def mutants(text: str, count: int, parts: Sequence[str]) -> Iterator[str]:
    """Texts with mistakes: something left out, twice, in another place, or one of ``parts`` in between."""
    rng = random.Random(text)
    for _ in range(count):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        c = rng.randrange(len(text) + 1)
        b = min(b, a + 12)
        kind = rng.randrange(4)
        if kind == 0:
            yield text[:a] + text[b:]
        elif kind == 1:
            yield text[:b] + text[a:b] + text[b:]
        elif kind == 2:
            yield text[:c] + text[a:b] + text[c:]
        else:
            yield text[:a] + rng.choice(parts) + text[a:]


def noise(count: int, parts: Sequence[str], seed: int = 0) -> Iterator[str]:
    """Texts of nothing but pieces of markup and words."""
    rng = random.Random(seed)
    halves = [part[: rng.randint(1, len(part))] for part in parts]
    alphabet = [*parts, *halves, *'{}[]",:\\ \n<>/', "word", "other", "12", "\u4f60\u597d", "\U0001f44b\U0001f3fd"]
    alphabet += ["\0", "\x1b[0m", "\r\n", "\ufffd", "\u2028"]
    for _ in range(count):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 30)))


def work(call: Callable[[], object]) -> int:
    """Calls that Python makes, each with the characters of texts that are new: handed over, or whose method it is.

    No clock: the same every time, whatever else the machine does. A text that is handed on from function to
    function with a position counts once; one that has grown by a piece counts anew.
    """
    total = 0
    recent: deque[str] = deque(maxlen=8)

    def count(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal total
        texts: Iterable[Any] = ()
        if event == "call":
            texts = frame.f_locals.values()
        elif event == "c_call":
            texts = (getattr(arg, "__self__", None),)
        else:
            return
        total += 1
        for text in texts:
            if type(text) is str and not any(text is other for other in recent):
                total += len(text)
                if len(text) > SHORT:
                    recent.append(text)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(before)
    return total


class TinyTokenizer:
    """``interfaces.tokenizer.Tokenizer`` over a byte-level vocabulary learnt from a few texts."""

    eos_token_ids: tuple[int, ...] = ()

    def __init__(self, texts: Iterable[str], added: Sequence[str] = (), special: Sequence[str] = ()) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

        self._rust = Tokenizer(models.BPE())
        self._rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._rust.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        self._rust.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
        )
        self._rust.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
        self._rust.add_special_tokens([AddedToken(text, special=True) for text in (*special, "<|turn|>")])
        self.vocab_size = self._rust.get_vocab_size()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._rust.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return self._rust.decode(list(ids), skip_special_tokens=skip_special_tokens)


def tiny_tokenizers(texts: Sequence[str], markers: Sequence[str]) -> dict[str, TinyTokenizer]:
    """The markers as ordinary text, as tokens of their own, and as special tokens, which outputs usually lack."""
    return {
        "markers as text": TinyTokenizer(texts),
        "markers as tokens": TinyTokenizer(texts, added=markers),
        "markers as special tokens": TinyTokenizer(texts, special=markers),
    }


def by_tokens(text: str, tokenizer: Any, at_once: int = 1, skip_special_tokens: bool = False) -> Pieces:
    """As an engine streams it: so many tokens a step, and no text until a character is whole."""
    from vllm_core.engine.detokenizer import Detokenizer

    detokenizer = Detokenizer(tokenizer, (), skip_special_tokens)
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces: Pieces = []
    for start in range(0, len(ids), at_once):
        step = ids[start : start + at_once]
        pieces.append(("".join(detokenizer.push(i) for i in step), list(step)))
    return [*pieces, (detokenizer.flush(), [])]
