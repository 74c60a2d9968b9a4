"""The tokenizer and the chat renderer of a model, as the settings ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.engine.chat import default_template
from vllm_core.interfaces.queries import ChatQuery, TokenizerQuery
from vllm_core.interfaces.weights import Checkpoint
from vllm_core.plugins import Selector

__all__ = ["choose_text", "read_template", "refuse_text_settings"]

NEED_TOKENIZER = {
    "tokenizer": None, "tokenizer_mode": "auto", "tokenizer_revision": None, "chat_template": None,
    "tool_call_parser": None, "reasoning_parser": None,
}  # fmt: skip
"""Settings that do nothing without a tokenizer, and the value that asks for nothing."""


def refuse_text_settings(settings: EngineSettings) -> None:
    """Refuse settings that ``skip_tokenizer_init`` leaves without effect."""
    for name, neutral in NEED_TOKENIZER.items():
        if settings.skip_tokenizer_init and getattr(settings, name) != neutral:
            raise SettingError(
                f"{name} was given together with skip_tokenizer_init, which leaves no tokenizer; drop one of them"
            )


def choose_text(
    selector: Selector, settings: EngineSettings, checkpoint: Checkpoint, config: Mapping
) -> tuple[Any, Any]:
    """The tokenizer and the chat renderer; (None, None) if there is none and none is wanted."""
    from vllm_core.engine.tokenizer import tokenizer_files

    if settings.skip_tokenizer_init:
        return None, None
    named, revision = settings.tokenizer, settings.tokenizer_revision
    if revision is not None and named is None:
        named = settings.model  # its own tokenizer, of another commit
    elif revision is None and named == settings.model:
        revision = settings.revision  # a commit of this repository; another's has none of that name
    files = tokenizer_files(named, checkpoint, download_dir=settings.download_dir, revision=revision)
    architectures = tuple(config.get("architectures") or ())
    mode = settings.tokenizer_mode
    query = TokenizerQuery(mode=mode, path=files.path, files=_names(files.path), architectures=architectures)
    wanted = None if mode == "auto" else mode
    tokenizer = selector.choose("tokenizer", query, wanted, asked_by="--tokenizer-mode").load()(files)
    given = settings.chat_template
    if given is not None:
        tokenizer.chat_template = read_template(given)
    template = default_template(getattr(tokenizer, "chat_template", None))
    chat = ChatQuery(mode="auto", architectures=architectures, template=template)
    # A template is what the core's renderer renders; another renderer would do without it.
    asked = (None, "") if given is None else ("auto", "--chat-template")
    return tokenizer, selector.choose("chat_renderer", chat, asked[0], asked_by=asked[1]).load()(tokenizer)


def read_template(given: str) -> str:
    """The text of ``chat_template``: what the file of that name holds, or else itself."""
    try:
        path = Path(given).expanduser()
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass  # too long for a name: it is the text
    if not any(mark in given for mark in ("{", "}", "\n")):
        raise SettingError(f"chat_template is {given!r}: no such file here, and not a Jinja template either")
    return given


def _names(folder: str) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in Path(folder).iterdir() if p.is_file())) if folder else ()
