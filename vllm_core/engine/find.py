"""The first half of resolving: who may be asked, on what device, and what the checkpoint says it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.config.plugins import plugin_settings
from vllm_core.engine.choices import check_prefer, refuse_not_yet
from vllm_core.engine.choose_text import refuse_text_settings
from vllm_core.engine.default_sampling import generation_configs
from vllm_core.engine.fleet.plan import devices_of_one
from vllm_core.engine.model_config import model_config, plain_overrides
from vllm_core.engine.timing import timed
from vllm_core.engine.tokenizer import eos_ids
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.platform import Platform
from vllm_core.interfaces.queries import PlatformQuery
from vllm_core.interfaces.weights import Checkpoint
from vllm_core.plugins import Selector, load_catalog, read_policy
from vllm_core.plugins.needs import INVARIANT
from vllm_core.weights.checkpoint import open_checkpoint

__all__ = ["Found", "find"]


@attrs.frozen(kw_only=True)
class Found:
    """What an engine starts from, before a model is chosen for it."""

    settings: EngineSettings  # hf_overrides as fields, where a function was given
    selector: Selector
    platform: Platform
    device: Device
    checkpoint: Checkpoint
    config: Mapping[str, Any]  # config.json with hf_overrides
    generation_config: Mapping[str, Any]  # how to sample by default
    eos_token_ids: tuple[int, ...]
    warnings: Sequence[str]  # about plugins: quarantined ones, names in the policy that nobody has

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(self.config.get("architectures") or ())


def find(settings: EngineSettings, timings: dict[str, float]) -> Found:
    """Load the plugins, choose the platform, and read the checkpoint's configuration."""
    refuse_not_yet(settings)
    refuse_text_settings(settings)
    with timed(timings, "plugins"):
        rules = read_policy(settings.plugins)
        catalog = load_catalog(rules)
        warnings = [*catalog.notices, *check_prefer({**rules.prefer, **settings.prefer}, catalog)]
        catalog.settings = plugin_settings(catalog, settings.plugin)
        needs = (INVARIANT,) if settings.batch_invariant else ()
        selector = Selector(catalog, prefer=settings.prefer, needs=needs)
        wanted = settings.device
        platform = selector.choose(
            "platform", PlatformQuery(name=wanted), None if wanted == "auto" else wanted, asked_by="--device"
        ).load()()
        device = selector.device = devices_of_one(platform.facts(), settings)
        if settings.max_num_seqs is None:
            settings = attrs.evolve(settings, max_num_seqs=platform.max_rows())
    with timed(timings, "checkpoint"):
        checkpoint = open_checkpoint(
            settings.model,
            revision=settings.revision,
            download_dir=settings.download_dir,
            load_format=settings.load_format,
            catalog=catalog,
            choose=selector.choose,
        )
        settings = attrs.evolve(settings, hf_overrides=plain_overrides(checkpoint.config, settings.hf_overrides))
        config = model_config(checkpoint.config, settings.hf_overrides)
        generation_config, ending = generation_configs(settings, checkpoint.generation_config)
        eos = eos_ids(config, ending)
    return Found(
        settings=settings,
        selector=selector,
        platform=platform,
        device=device,
        checkpoint=checkpoint,
        config=config,
        generation_config=generation_config,
        eos_token_ids=eos,
        warnings=warnings,
    )
