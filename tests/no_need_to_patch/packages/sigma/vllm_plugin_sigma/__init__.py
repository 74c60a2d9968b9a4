"""Top-n-sigma sampling, and what goes with it, for vllm-core. Importing this module must not import torch."""

from vllm_core.interfaces.queries import LogitsProcessorQuery, ProposerQuery, SamplerQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("sampler", "sigma", "tokens within n standard deviations of the best"),
        Provides("logits_processor", "no-pairs", "no pair of tokens comes twice"),
        Provides("draft_proposer", "follow", "what followed the last token before, with probabilities"),
    ]


@hookimpl
def settings() -> str:
    return "vllm_plugin_sigma.settings:Settings"


@hookimpl
def sampler(query: SamplerQuery, settings) -> Offer | None:
    if settings.n == 0:
        return None
    target = "vllm_plugin_sigma.sampler:TopNSigma"
    return Offer(name="sigma", target=target, rank=Rank.TUNED, options={"n": settings.n})


@hookimpl
def logits_processor(query: LogitsProcessorQuery) -> Offer | None:
    if query.name != "no-pairs":
        return None
    return Offer(name="no-pairs", target="vllm_plugin_sigma.no_pairs:NoPairs")


@hookimpl
def draft_proposer(query: ProposerQuery) -> Offer | Refusal | None:
    if query.method != "follow":
        return None
    if query.config:
        return Refusal(f"it has no keys, and was given {', '.join(sorted(query.config))}", name="follow")
    return Offer(name="follow", target="vllm_plugin_sigma.follow:Follow")
