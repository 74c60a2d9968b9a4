"""Single choices of `engine.resolve` that need more than one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.config.engine import EngineSettings
from vllm_core.interfaces.queries import ChatQuery, ProposerQuery, QuantizationQuery, TokenizerQuery
from vllm_core.interfaces.weights import Checkpoint
from vllm_core.plugins import Selector
from vllm_core.runner.build import ProposerChoice


def refuse_parallelism(settings: EngineSettings) -> None:
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if getattr(settings, name) > 1:
            raise ValueError(
                f"{name} is {getattr(settings, name)}: this version runs a model on one device.\n"
                f"  instead leave --{name.replace('_', '-')} at 1"
            )


def choose_quantization(selector: Selector, settings: EngineSettings, config: Mapping, dtype: str, device: Any) -> Any:
    details = config.get("quantization_config") or {}
    method = settings.quantization or details.get("quant_method")
    if not method:
        return None
    query = QuantizationQuery(method=method, config=details, dtype=dtype, device=device)
    asked_by = "--quantization" if settings.quantization else "quantization_config of the checkpoint"
    return selector.choose("quantization_method", query, method, asked_by=asked_by).load()(dict(details))


def choose_proposer(
    selector: Selector, settings: EngineSettings, architecture: str, device: Any
) -> ProposerChoice | None:
    if not settings.speculative_config:
        return None
    config = dict(settings.speculative_config)
    method, num_drafts = config.pop("method", None), config.pop("num_speculative_tokens", None)
    if not isinstance(method, str) or not isinstance(num_drafts, int) or num_drafts < 1:
        raise ValueError(
            'speculative_config needs "method" (a name) and "num_speculative_tokens" (at least 1), '
            f"not {settings.speculative_config!r}"
        )
    query = ProposerQuery(method=method, num_drafts=num_drafts, architecture=architecture, config=config, device=device)
    decision = selector.choose("draft_proposer", query, method, asked_by="speculative_config")
    return ProposerChoice(
        target=decision.offer.target, num_drafts=num_drafts, config={**decision.offer.options, **config}
    )


def choose_text(
    selector: Selector, settings: EngineSettings, checkpoint: Checkpoint, config: Mapping
) -> tuple[Any, Any]:
    """The tokenizer and the chat renderer; (None, None) if there is none and none is wanted."""
    from vllm_core.engine.tokenizer import tokenizer_files

    if settings.skip_tokenizer_init:
        return None, None
    files = tokenizer_files(settings.tokenizer, checkpoint, download_dir=settings.download_dir)
    architectures = tuple(config.get("architectures") or ())
    mode = settings.tokenizer_mode
    query = TokenizerQuery(mode=mode, path=files.path, files=(), architectures=architectures)
    named = None if mode == "auto" else mode
    tokenizer = selector.choose("tokenizer", query, named, asked_by="--tokenizer-mode").load()(files)
    template = getattr(tokenizer, "chat_template", None) or ""
    chat = ChatQuery(mode="auto", architectures=architectures, template=template)
    return tokenizer, selector.choose("chat_renderer", chat).load()(tokenizer)
