"""The core's own tokenizer: whatever transformers reads, decoded by the Rust tokenizer below it where there is one.

transformers is imported when a tokenizer is made, not before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vllm_core.interfaces.weights import Checkpoint, TokenizerFiles
from vllm_core.weights.hub import HubError, download
from vllm_core.weights.locate import is_hub_id

__all__ = ["HFTokenizer", "eos_ids", "load_tokenizer", "tokenizer_files"]


class HFTokenizer:
    """``interfaces.tokenizer.Tokenizer`` over a transformers tokenizer (``hf``)."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf
        self.vocab_size: int = len(hf)
        self.chat_template: str | None = getattr(hf, "chat_template", None)
        self.eos_token_ids: tuple[int, ...] = () if hf.eos_token_id is None else (hf.eos_token_id,)
        self._rust = getattr(hf, "backend_tokenizer", None)  # 20 times faster at decoding a few tokens

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self.hf.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        if self._rust is not None:
            return self._rust.decode(ids, skip_special_tokens=skip_special_tokens)
        return self.hf.decode(list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Pieces as the vocabulary has them, by transformers' name for it."""
        return self.hf.convert_ids_to_tokens(list(ids))


def eos_ids(config: Mapping[str, Any], generation_config: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that end a text: generation_config.json's ``eos_token_id`` if it has one, else config.json's."""
    for source in (generation_config, config, config.get("text_config") or {}):
        found = source.get("eos_token_id")
        if found is not None:
            ids = found if isinstance(found, list | tuple) else [found]
            if not all(type(i) is int and i >= 0 for i in ids):
                raise ValueError(
                    f'"eos_token_id" of the model must be a token id or a list of them, not {found!r:.80} '
                    "(generation_config.json or config.json)"
                )
            return tuple(ids)
    return ()


def load_tokenizer(files: TokenizerFiles) -> HFTokenizer:
    """Read a tokenizer from a folder, or build it from parts that a checkpoint brought in memory."""
    return HFTokenizer(_from_folder(files.path) if files.path else _from_parts(files))


def tokenizer_files(
    named: str | None, checkpoint: Checkpoint, *, download_dir: str | None = None, revision: str | None = None
) -> TokenizerFiles:
    """Where the tokenizer is: in the folder or Hub repository the user named, or with the checkpoint."""
    if named is None:
        if checkpoint.tokenizer is None:
            raise ValueError(
                "this checkpoint comes without a tokenizer.\n"
                "  instead tokenizer= a folder or Hub id, or skip_tokenizer_init=True and prompts as token ids"
            )
        return checkpoint.tokenizer
    folder = Path(named).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"tokenizer_revision is {revision!r}, but the tokenizer is in {folder}, and files have no revisions\n"
                "  instead leave tokenizer_revision out"
            )
        return TokenizerFiles(path=str(folder))
    if not is_hub_id(named):
        raise FileNotFoundError(f"tokenizer={named!r} is neither a folder here nor a Hub id such as 'owner/name'")
    try:
        return TokenizerFiles(path=download(named, revision=revision, download_dir=download_dir, weights=False))
    except HubError as error:
        raise FileNotFoundError(
            f"the tokenizer {named!r} was not found; tried in this order\n"
            f"  path     {folder.absolute()}: no such folder\n  Hub      {error}"
        ) from error


def _from_folder(path: str) -> Any:
    try:
        if _is_generic(Path(path)):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
        from transformers import AutoTokenizer

        with _no_word_on_unknown_models():
            return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        folder = Path(path)
        files = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        raise ValueError(
            f"the tokenizer in {path} cannot be read: {error}\n"
            f"  files   {', '.join(files) or ('none' if folder.is_dir() else 'there is no such folder')}\n"
            "  instead tokenizer= another folder or Hub id, or skip_tokenizer_init=True and prompts as token ids"
        ) from error


def _is_generic(folder: Path) -> bool:
    """Whether tokenizer.json says all there is, as in most newer checkpoints.

    ``AutoTokenizer`` then comes to the same class, after it has imported models and a compiler: 1.1 s.
    """
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
    except (OSError, ValueError, AttributeError):
        return False
    return named in ("PreTrainedTokenizerFast", "TokenizersBackend") and (folder / "tokenizer.json").is_file()


@contextmanager
def _no_word_on_unknown_models() -> Iterator[None]:
    """transformers warns of a "model_type" that it does not know: it is only asked for the tokenizer."""
    log = logging.getLogger("transformers.configuration_utils")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _from_parts(files: TokenizerFiles) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    # These say which class and files to read; the parts are already here.
    settings = {k: v for k, v in files.settings.items() if k not in ("tokenizer_class", "auto_map", "tokenizer_file")}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(files.tokenizer_json), **settings)
