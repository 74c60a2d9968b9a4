"""Text to token ids and back, for data sets of a wanted length: by the server itself, by a local tokenizer, or not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.bench.words import LINES

__all__ = ["LocalTokens", "RawTokens", "ServerTokens", "Tokens", "choose"]


class Tokens(Protocol):
    """``ids`` are what random prompts are drawn from, no special tokens among them."""

    name: str | None
    ids: Sequence[int]

    async def encode(self, text: str) -> list[int]: ...
    async def decode(self, ids: Sequence[int]) -> str: ...


class ServerTokens:
    """The server's /tokenize and /detokenize: what it counts is what it computes."""

    def __init__(self, client: Client, model: str) -> None:
        self.name: str | None = model
        self.ids: Sequence[int] = ()
        self._client, self._model = client, model

    async def begin(self) -> bool:
        """Whether the server has both routes. Reads some text, whose tokens random prompts are made of."""
        try:
            found = sorted(set(await self.encode("\n".join(LINES))))
            await self.decode(found[:1])
        except (OSError, ValueError, KeyError, IndexError):
            return False
        self.ids = found
        return True

    async def encode(self, text: str) -> list[int]:
        asked = {"model": self._model, "prompt": text, "add_special_tokens": False}
        return (await self._ask("/tokenize", asked))["tokens"]

    async def decode(self, ids: Sequence[int]) -> str:
        return (await self._ask("/detokenize", {"model": self._model, "tokens": list(ids)}))["prompt"]

    async def _ask(self, route: str, body: Any) -> Any:
        answer = await self._client.exchange("POST", route, msgspec.json.encode(body))
        if answer.status != 200:
            raise ValueError(f"{route} answered {answer.status}: {answer.body[:200]!r}")
        return msgspec.json.decode(answer.body)


class LocalTokens:
    """A tokenizer of transformers, from a folder or the Hub."""

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        self.name: str | None = name
        self._tokenizer = AutoTokenizer.from_pretrained(name)
        special = set(self._tokenizer.all_special_ids)
        self.ids: Sequence[int] = [i for i in range(len(self._tokenizer)) if i not in special]

    async def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    async def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids))


class RawTokens:
    """No tokenizer: prompts are token ids below a number, which only /v1/completions takes."""

    name: str | None = None

    def __init__(self, vocab_size: int) -> None:
        self.ids: Sequence[int] = range(vocab_size)

    async def encode(self, text: str) -> list[int]:
        raise ValueError("a data set of text needs a tokenizer, and --skip-tokenizer-init leaves it out")

    async def decode(self, ids: Sequence[int]) -> str:
        raise ValueError("a data set of text needs a tokenizer, and --skip-tokenizer-init leaves it out")


async def choose(client: Client, model: str, root: str | None, wanted: str | None) -> Tokens:
    """The tokenizer that was named, else the server's, else the model's by name. ``ValueError`` if there is none."""
    if wanted is not None:
        return _local(wanted, "--tokenizer")
    served = ServerTokens(client, model)
    if await served.begin():
        return served
    return _local(root or model, "the server has no /tokenize, and the model's name")


def _local(name: str, what: str) -> LocalTokens:
    try:
        return LocalTokens(name)
    except (ImportError, OSError, ValueError, KeyError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{what}: {name!r} gives no tokenizer: {why}\n"
            "  instead --tokenizer FOLDER, or --skip-tokenizer-init --vocab-size N for random ids as prompts"
        ) from error


async def text_of_length(tokens: Tokens, ids: Sequence[int], chance: random.Random) -> tuple[str, int]:
    """Text of nearly ``len(ids)`` tokens beginning as ``ids`` do, and how many it has.

    Neighbours may merge or split when their text is read again, so that it is corrected some times.
    """
    text, found = "", list(ids)
    for _ in range(4):
        text = await tokens.decode(found)
        found = await tokens.encode(text)
        if len(found) == len(ids):
            break
        found = found[: len(ids)] + chance.choices(tokens.ids, k=len(ids) - len(found))
    return text, len(await tokens.encode(text))
