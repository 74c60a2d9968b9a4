"""Whether a model would start: what can be known without reading a weight, and all that is missing at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from vllm_core.cli.doctor.finding import Finding
from vllm_core.cli.doctor.machine import size

if TYPE_CHECKING:
    from vllm_core.config.engine import EngineSettings
    from vllm_core.engine.find import Found
    from vllm_core.plugins.catalog import Catalog

__all__ = ["model"]


def model(settings: EngineSettings, catalog: Catalog) -> Iterator[Finding]:
    from vllm_core.engine.find import find

    local = Path(settings.model).expanduser().exists() or settings.model in catalog.names("bundled_model")
    if not local:
        if reason := _whole_download(settings):
            yield Finding("model", "files", "warn", reason, remedy="any command that serves it downloads it")
            return
        # Configuration and tokenizer are small; the weights stay where they are.
        settings = attrs.evolve(settings, load_format="dummy")
    try:
        found = find(settings, {})
    except Exception as error:
        yield Finding("model", "files", "fail", _words(error))
        return
    where = getattr(found.checkpoint, "path", None) or settings.model
    yield Finding("model", "files", "ok", str(where), facts={"config": dict(found.config)})
    yield _weights(found)
    served, method = _served(found), _quantization(found)
    yield from (finding for finding in (served, method) if finding is not None)
    if all(finding is None or finding.verdict == "ok" for finding in (served, method)):
        yield from _fit(found)
    yield from _text(found)


def _whole_download(settings: EngineSettings) -> str:
    """Why a single file on the Hub is not looked into: it would be downloaded as a whole."""
    from huggingface_hub import try_to_load_from_cache

    from vllm_core.weights.locate import is_hub_id

    owner, _, rest = settings.model.partition("/")
    name, _, file = rest.partition("/")
    if not file or not is_hub_id(settings.model, or_file=True):
        return ""
    repo = f"{owner}/{name}"
    folder = settings.download_dir
    cached = try_to_load_from_cache(repo, file, cache_dir=folder, revision=settings.revision)
    return "" if isinstance(cached, str) else f"{file} of {repo} is not in the cache, and is one file with the weights"


def _weights(found: Found) -> Finding:
    """Names and sizes, from the files' headers."""
    if found.settings.load_format == "dummy":
        return Finding("model", "weights", "ok", "not looked at: random ones (dummy), or not downloaded yet")
    try:
        tensors = found.checkpoint.source.tensors()
    except Exception as error:
        return Finding("model", "weights", "fail", _words(error))
    total = sum(info.nbytes for info in tensors.values())
    facts = {"tensors": len(tensors), "bytes": total}
    return Finding("model", "weights", "ok", f"{len(tensors):,} tensors, {size(total)} on disk", facts=facts)


def _served(found: Found) -> Finding | None:
    from vllm_core.interfaces.queries import ModelQuery

    query = ModelQuery(architectures=found.architectures, config=found.config, device=found.device)

    def look() -> tuple[str, dict[str, Any]]:
        decision = _asked(found).choose_model(query)
        decision.load()
        whose = f"{decision.provided.distribution} {decision.provided.version}"
        return f"{decision.offer.name} by {whose}", {"architecture": decision.offer.name, "by": whose}

    return _tried("architecture", look)


def _quantization(found: Found) -> Finding | None:
    from vllm_core.engine.choices import choose_quantization
    from vllm_core.engine.model_limits import choose_dtype

    method = found.settings.quantization or (found.config.get("quantization_config") or {}).get("quant_method")
    if not method:
        return None

    def look() -> tuple[str, dict[str, Any]]:
        dtype = choose_dtype(found.settings.dtype, found.config, found.platform.dtypes(), found.device)
        choose_quantization(_asked(found), found.settings, found.config, dtype, found.device)
        return str(method), {"method": method}

    return _tried("quantization", look)


def _fit(found: Found) -> Iterator[Finding]:
    from vllm_core.engine.fit import fit
    from vllm_core.engine.memory import MemoryPlanError

    selector = _asked(found)
    try:
        fitted = fit(attrs.evolve(found, selector=selector))
    except Exception as error:
        yield Finding("model", "memory" if isinstance(error, MemoryPlanError) else "engine", "fail", _words(error))
        return
    build, memory = fitted.model_build, fitted.memory
    backends = sorted({d.offer.name for d in selector.decisions if d.hook == "attention_backend"})
    says = f"{build.dtype}, up to {build.max_model_len:,} tokens a sequence, {fitted.max_step_tokens:,} a step"
    if backends:
        says += f", attention {', '.join(backends)}"
    facts: dict[str, Any] = {
        "dtype": build.dtype, "max_model_len": build.max_model_len, "max_step_tokens": fitted.max_step_tokens,
        "attention_backends": backends,
    }  # fmt: skip
    yield Finding("model", "engine", "ok", says, facts=facts)
    budget = memory.budget
    rows = found.settings.max_rows
    full = min(memory.sequences, rows)
    says = (
        f"weights {size(budget.weights)}, cache {size(memory.cache_bytes)} ({budget.source}): room for {full:,.1f}"
        f" sequences of {build.max_model_len:,} tokens at once; "
        + (", ".join(budget.beside.shown()) or "activations are not counted")
    )
    facts = {
        "weights_bytes": budget.weights, "cache_bytes": memory.cache_bytes, "device_bytes": budget.memory,
        "full_sequences": full, "source": budget.source,
    }  # fmt: skip
    need = budget.weights + memory.cache_bytes
    if found.device.type == "cpu" and budget.weights > (free := found.platform.free_memory(0)):
        says += f"; only {size(free)} are free now"
        remedy = "end other programs, or take a smaller model: the machine would swap"
        yield Finding("model", "memory", "warn", says, remedy=remedy, facts={**facts, "free_bytes": free})
        return
    yield Finding("model", "memory", "ok", says, facts={**facts, "needed_bytes": need})


def _text(found: Found) -> Iterator[Finding]:
    from vllm_core.engine.choose_text import choose_text

    if found.settings.skip_tokenizer_init:
        yield Finding("model", "tokenizer", "ok", "skipped: prompts are token ids")
        return
    try:
        tokenizer, renderer = choose_text(_asked(found), found.settings, found.checkpoint, found.config)
    except Exception as error:
        yield Finding("model", "tokenizer", "fail", _words(error))
        return
    says = f"{tokenizer.vocab_size:,} tokens, ends with {list(tokenizer.eos_token_ids)}"
    yield Finding("model", "tokenizer", "ok", says, facts={"vocab_size": tokenizer.vocab_size})
    # Only a renderer of templates can lack one.
    if getattr(renderer, "chat_template", "its own"):
        yield Finding("model", "chat template", "ok", "present", facts={"present": True})
    else:
        yield Finding(
            "model", "chat template", "warn", "none: generate works, chat does not",
            remedy="--chat-template FILE", facts={"present": False},
        )  # fmt: skip


def _asked(found: Found) -> Any:
    """A selector that knows of no earlier choice: each part is looked at by itself."""
    from vllm_core.plugins import Selector

    return Selector(found.selector.catalog, found.device, prefer=found.settings.prefer)


def _tried(name: str, look: Callable[[], tuple[str, dict[str, Any]]]) -> Finding:
    try:
        says, facts = look()
    except Exception as error:
        return Finding("model", name, "fail", _words(error))
    return Finding("model", name, "ok", says, facts=facts)


def _words(error: Exception) -> str:
    ours = type(error).__module__.startswith("vllm_core") or isinstance(error, ValueError | OSError)
    return str(error) if ours and str(error) else f"{type(error).__name__}: {error}"
