"""`TokenizerConformance`: the tests that every tokenizer runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vllm_core.engine.detokenizer import Detokenizer
from vllm_core.interfaces.queries import TokenizerQuery
from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.plugin import Offer
from vllm_core.testing.cuts import work
from vllm_core.testing.installed import Installed, InstalledConformance

__all__ = ["TEXTS", "TokenizerConformance"]

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    " leading and trailing spaces  ",
    "tabs\tand\nnew\r\nlines\n\n\n",
    "a" * 40,
    "0123456789 3.14159 -1e10 0xff",
    "def f(x):\n    return {'k': [x ** 2, \"q\"]}  # done\n",
    "Größe, naïve, Ünïcödé, ½ €",
    "你好，世界。今天天气很好！",
    "こんにちは 안녕하세요 مرحبا بالعالم שלום",
    "👋🏽 👨‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200d\u200b",
    "\x00\x01\x7f \u2028\ufeff\ufffd",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff",
)
RUNS = 300  # random sequences of ids
BYTES = "bad bytes"


class TokenizerConformance(InstalledConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    mode            its name, as in --tokenizer-mode
    architectures   of the model whose tokenizer it is
    special         texts of special tokens, which ``skip_special_tokens`` leaves out
    vocab_size      tokens it has
    texts           further texts that it must take and give back
    refused         name -> (files: name -> content, words of the error) that it cannot be made of
    cannot          "lossless": texts do not come back exactly; "bad bytes": a stream of ids that are no characters may
                    differ from the whole, as with byte fallback -> why
    """

    kind = "tokenizer"
    hook = "tokenizer"
    subject = "mode"

    mode: ClassVar[str]
    architectures: ClassVar[Sequence[str]] = ()
    special: ClassVar[Sequence[str]] = ()
    vocab_size: ClassVar[int]
    texts: ClassVar[Sequence[str]] = ()
    refused: ClassVar[Mapping[str, tuple[Mapping[str, str], str]]] = {}

    # ---- what subclasses say

    @classmethod
    def files(cls, folder: Path) -> TokenizerFiles:
        """What it is made of; write it into this empty folder."""
        return TokenizerFiles(path=str(folder))

    # ---- what tests use

    @classmethod
    def query(cls, mode: str, files: TokenizerFiles) -> TokenizerQuery:
        names = tuple(sorted(p.name for p in Path(files.path).iterdir())) if files.path else ()
        return TokenizerQuery(mode=mode, path=files.path, files=names, architectures=tuple(cls.architectures))

    @pytest.fixture(scope="class")
    @classmethod
    def made_of(cls, tmp_path_factory: pytest.TempPathFactory) -> TokenizerFiles:
        return cls.files(tmp_path_factory.mktemp("tokenizer"))

    @pytest.fixture(scope="class")
    @classmethod
    def factory(cls, installed: Installed, made_of: TokenizerFiles) -> Any:
        return installed.choose(cls.query(cls.mode, made_of)).load()

    @pytest.fixture(scope="class")
    @classmethod
    def tokenizer(cls, factory: Any, made_of: TokenizerFiles) -> Any:
        return factory(made_of)

    @property
    def all_texts(self) -> list[str]:
        marked = [f"before{text}after" for text in self.special]
        return [*TEXTS, *self.texts, *marked, "\n".join(TEXTS)]

    def test_its_hook_offers_it_by_name(self, installed: Installed, made_of: TokenizerFiles) -> None:
        offer = installed.answer(self.query(self.mode, made_of))
        assert isinstance(offer, Offer), f"{self.hook} answers {offer!r} to its own name"
        assert offer.name == self.mode

    def test_other_modes_and_files_that_others_read_are_none_of_its_business(
        self, installed: Installed, tmp_path: Path
    ) -> None:
        assert installed.answer(self.query("unheard-of-by-anybody", TokenizerFiles(path=str(tmp_path)))) is None
        (tmp_path / "tokenizer.json").write_text("{}")
        query = TokenizerQuery(
            mode="auto", path=str(tmp_path), files=("tokenizer.json",), architectures=("UnheardOfForCausalLM",)
        )
        found = installed.answer(query)
        assert not isinstance(found, Offer) or found.name == "auto", (
            "with mode auto it offers itself for a tokenizer.json, which everybody reads, of a model it does not know"
        )

    # ---- text to ids

    def test_the_vocabulary_has_its_size(self, tokenizer: Any) -> None:
        assert tokenizer.vocab_size == self.vocab_size
        for text in self.all_texts:
            for ids in (tokenizer.encode(text), tokenizer.encode(text, add_special_tokens=False)):
                assert isinstance(ids, list), f"encode() gives a {type(ids).__name__}, no list"
                wrong = [i for i in ids if type(i) is not int or not 0 <= i < self.vocab_size]
                assert not wrong, f"{text!r:.60} has the id {wrong[0]!r}, and there are {self.vocab_size} tokens"

    def test_the_ends_of_text_are_special_tokens_of_the_vocabulary(self, tokenizer: Any) -> None:
        assert isinstance(tokenizer.eos_token_ids, tuple)
        for end in tokenizer.eos_token_ids:
            assert type(end) is int
            assert 0 <= end < self.vocab_size
            assert tokenizer.decode([end], skip_special_tokens=True) == "", f"the end of text {end} is left in texts"

    def test_texts_come_back(self, tokenizer: Any) -> None:
        self.needs("lossless")
        for text in self.all_texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            _same(tokenizer.decode(ids, skip_special_tokens=False), text, "there and back")

    def test_what_is_added_around_a_text_is_special(self, tokenizer: Any) -> None:
        for text in (*TEXTS, *self.texts):
            own, whole = tokenizer.encode(text, add_special_tokens=False), tokenizer.encode(text)
            at = next((i for i in range(len(whole)) if whole[i : i + len(own)] == own), None)
            assert at is not None, f"{text!r:.60}: with special tokens its own ids change: {own[:8]} in {whole[:8]}"
            for extra in (*whole[:at], *whole[at + len(own) :]):
                assert tokenizer.decode([extra], skip_special_tokens=True) == "", f"{extra} is added, and not special"

    def test_special_tokens_are_left_out_on_demand(self, tokenizer: Any) -> None:
        for text in self.special:
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert len(ids) == 1, f"{text!r} is {len(ids)} tokens, and so no special one"
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
            around = [*tokenizer.encode("a", add_special_tokens=False), *ids]
            assert text not in tokenizer.decode(around, skip_special_tokens=True)
            assert text in tokenizer.decode(around, skip_special_tokens=False)

    def test_nothing_is_nothing(self, tokenizer: Any) -> None:
        assert tokenizer.encode("", add_special_tokens=False) == []
        assert tokenizer.decode([]) == ""

    def test_a_text_that_is_none_is_refused(self, tokenizer: Any) -> None:
        """Half of a character beyond 16 bits, as JSON can hold it."""
        try:
            ids = tokenizer.encode("a\ud83d b", add_special_tokens=False)
        except Exception:  # the core says that it is about this prompt
            return
        tokenizer.decode(ids).encode()

    # ---- ids to text

    def test_every_id_has_a_text(self, tokenizer: Any) -> None:
        for i in range(self.vocab_size):
            for skip in (True, False):
                text = tokenizer.decode([i], skip_special_tokens=skip)
                assert isinstance(text, str)
                text.encode()  # no half characters: they cannot be sent

    def test_ids_beyond_the_vocabulary_have_none(self, tokenizer: Any) -> None:
        """Models have more logits than tokens, and may draw one."""
        ids = tokenizer.encode("a", add_special_tokens=False)
        for beyond in (self.vocab_size, self.vocab_size + 100):
            _same(tokenizer.decode([*ids, beyond]), tokenizer.decode(ids), f"the id {beyond} is left out")

    def test_streams_give_what_the_whole_gives_from_every_cut(self, tokenizer: Any) -> None:
        """A prompt that ends anywhere, and the rest token by token."""
        for text in self.all_texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            cuts = range(len(ids)) if len(ids) <= 120 else random.Random(text).sample(range(len(ids)), 60)
            for cut in cuts:
                self._streams(tokenizer, ids[:cut], ids[cut:])

    def test_random_ids_stream_as_they_read(self, tokenizer: Any) -> None:
        """Bytes that are no characters, special tokens anywhere, tokens that never meet in a text."""
        self.needs(BYTES)
        rng = random.Random(0)
        few = [rng.randrange(self.vocab_size) for _ in range(12)]
        for number in range(RUNS):
            drawn = few if number % 3 == 0 else range(self.vocab_size)
            ids = [rng.choice(drawn) for _ in range(rng.randint(1, 40))]
            self._streams(tokenizer, ids[: rng.choice((0, 0, len(ids) // 2))], ids)

    @staticmethod
    def _streams(tokenizer: Any, prompt: list[int], ids: list[int]) -> None:
        for skip in (True, False):
            stream = Detokenizer(tokenizer, prompt, skip)
            pieces = [stream.push(i) for i in ids]
            got = "".join(pieces) + stream.flush()
            before = tokenizer.decode(prompt, skip_special_tokens=skip)
            whole = tokenizer.decode([*prompt, *ids], skip_special_tokens=skip)
            # A prompt may end in half a character, which its first output token makes whole or not.
            half = len(before) - len(before.rstrip("\ufffd"))
            if not any(before[: len(before) - k] + got == whole for k in range(1, half + 1)):
                _same(before + got, whole, f"a stream behind {len(prompt)} tokens of {[*prompt, *ids]!r:.90}")

    # ---- the rest

    def test_threads_do_not_meet(self, tokenizer: Any) -> None:
        texts = self.all_texts * 4
        want = [tokenizer.encode(text) for text in texts]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(tokenizer.encode, texts)) == want
            assert list(pool.map(tokenizer.decode, want)) == [tokenizer.decode(ids) for ids in want]

    def test_the_work_grows_with_the_text_and_no_faster(self, tokenizer: Any) -> None:
        def both(text: str) -> None:
            tokenizer.decode(tokenizer.encode(text))

        text = "The quick brown fox — 你好 👋🏽. " * 40
        both(text)  # what is made once
        small, large = work(lambda: both(text)), work(lambda: both(text * 4))
        assert large < 6 * small + 100, f"four times the text makes {large / small:.1f} times the work"

    def test_files_that_it_cannot_be_made_of_are_refused(self, factory: Any, tmp_path: Path) -> None:
        for name, (files, words) in self.refused.items():
            folder = tmp_path / name.replace(" ", "-")
            folder.mkdir()
            for file, content in files.items():
                (folder / file).write_text(content, encoding="utf-8")
            with pytest.raises((ValueError, OSError)) as caught:
                factory(TokenizerFiles(path=str(folder)))
            assert words in str(caught.value), f"{name}: {caught.value}"


def _same(got: str, want: str, what: str) -> None:
    __tracebackhide__ = True
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
        raise AssertionError(f"{what}: from character {at} on {got[at : at + 30]!r} instead of {want[at : at + 30]!r}")
