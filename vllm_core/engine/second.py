"""A second model beside the one that is served, as a proposer asks for it: found, chosen, and its tokens compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from vllm_core.engine.choices import choose_quantization
from vllm_core.engine.find import Found
from vllm_core.engine.model_config import model_config
from vllm_core.engine.model_limits import choose_max_model_len
from vllm_core.engine.tokenizer import load_tokenizer, tokenizer_files
from vllm_core.interfaces.queries import ModelQuery
from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.plugins.errors import NoOffer
from vllm_core.runner.second import SecondModel
from vllm_core.weights.checkpoint import open_checkpoint
from vllm_core.weights.errors import CheckpointError

__all__ = ["SecondModelError", "compare_tokens", "find_second"]

SHOWN = 3  # tokens that differ, in messages


class SecondModelError(ValueError):
    """A second model cannot stand beside the one that is served."""


def find_second(
    found: Found, dtype: str, max_model_len: int, *, model: str, revision: str | None = None, quantization: str = ""
) -> SecondModel:
    """Open the checkpoint, choose who serves it, and check that both models speak of the same tokens and lengths."""
    settings, selector = found.settings, found.selector
    try:
        checkpoint = open_checkpoint(
            model,
            revision=revision,
            download_dir=settings.download_dir,
            load_format="dummy" if settings.load_format == "dummy" else "auto",
            catalog=selector.catalog,
            choose=selector.choose,
        )
    except CheckpointError as error:
        raise SecondModelError(f"speculative_config: {error}") from error
    config = model_config(checkpoint.config, {})
    query = ModelQuery(architectures=tuple(config.get("architectures") or ()), config=config, device=found.device)
    try:
        decision = selector.choose_model(query)
    except NoOffer as error:
        raise NoOffer(f"{error.title}\n  asked for as the second model {model}", **error.facts) from error
    decision.load()
    try:
        choose_max_model_len(max_model_len, config)
    except ValueError:
        most = choose_max_model_len(None, config)
        raise SecondModelError(
            f"the second model {model} was made for {most:,} tokens (config.json), and max_model_len is"
            f" {max_model_len:,}.\n  Any one of these starts:\n    --max-model-len {most}\n"
            "    --speculative-config left out, or with a model that takes as many tokens"
        ) from None
    _same_tokens(found, model, checkpoint, config)
    asked = attrs.evolve(settings, quantization=quantization or None)
    return SecondModel(
        target=decision.offer.target,
        owner=f"{decision.provided.distribution} {decision.provided.version}",
        config=config,
        checkpoint=checkpoint,
        quantization=choose_quantization(selector, asked, config, dtype, found.device),
    )


def _same_tokens(found: Found, model: str, checkpoint: Any, config: Mapping[str, Any]) -> None:
    """Sizes of vocabularies may differ by padding only where tokenizers are there to tell."""
    settings = found.settings
    first = found.checkpoint.tokenizer
    if settings.tokenizer is not None and not settings.skip_tokenizer_init:
        first = tokenizer_files(
            settings.tokenizer,
            found.checkpoint,
            download_dir=settings.download_dir,
            revision=settings.tokenizer_revision,
        )
    if first is not None and checkpoint.tokenizer is not None:
        if wrong := compare_tokens(first, checkpoint.tokenizer):
            raise SecondModelError(
                f"the second model {model} speaks of other tokens than {settings.model}: {wrong}\n"
                "  instead a model with the same tokenizer, most often a smaller one of the same family"
            )
        return
    mine, its = _vocab_size(found.config), _vocab_size(config)
    if mine != its:
        raise SecondModelError(
            f"the second model {model} has {its:,} tokens and {settings.model} has {mine:,}, and there are no two"
            " tokenizers to tell whether the rest is padding.\n  instead a model with the same tokenizer"
        )


def compare_tokens(first: TokenizerFiles, second: TokenizerFiles) -> str:
    """How the ordinary tokens of two tokenizers differ; "" if they do not.

    Tokens that were added later (roles of a chat, reserved places) may differ: they name the same
    text in no vocabulary's sense, and a wrong guess costs no more than another one.
    """
    texts = _json_of(first), _json_of(second)
    if texts[0] is not None and texts[0] == texts[1]:
        return ""
    (a, added), (b, more) = (_tokens(files, text) for files, text in zip((first, second), texts, strict=True))
    added |= more
    ids = sorted((a.keys() | b.keys()) - added)
    differ = [i for i in ids if a.get(i) != b.get(i)]
    if not differ:
        return ""
    shown = ", ".join(f"{i} is {a.get(i)!r} and {b.get(i)!r}" for i in differ[:SHOWN])
    return f"{len(differ):,} of {len(ids):,} ids differ (token {shown})"


def _json_of(files: TokenizerFiles) -> str | None:
    """The content of tokenizer.json, if there is one."""
    if not files.path:
        return files.tokenizer_json
    path = Path(files.path) / "tokenizer.json"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _tokens(files: TokenizerFiles, text: str | None) -> tuple[dict[int, str], set[int]]:
    """Token by id, and the ids of those that were added."""
    if text is None:
        hf = load_tokenizer(files).hf
        return {i: token for token, i in hf.get_vocab().items()}, set(hf.get_added_vocab().values())
    content = json.loads(text)
    vocab = content["model"]["vocab"]
    found = (
        {i: token for token, i in vocab.items()}
        if isinstance(vocab, dict)
        else {i: token for i, (token, _) in enumerate(vocab)}
    )
    return found, {token["id"] for token in content.get("added_tokens") or ()}


def _vocab_size(config: Mapping[str, Any]) -> int:
    return (config.get("text_config") or config).get("vocab_size", 0)
