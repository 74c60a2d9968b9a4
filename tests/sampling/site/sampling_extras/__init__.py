"""A plugin as a stranger would write it: two logits processors and a draft proposer. Imports no torch."""

from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1
PROCESSORS = {"no-repeat": "OnDevice", "no-repeat-host": "OnHost", "sharpen": "Sharpen", "broken": "Broken"}


@hookimpl
def provides():
    return [
        *(Provides("logits_processor", name, "a test's") for name in PROCESSORS),
        Provides("draft_proposer", "lookup", "what followed the last token before"),
    ]


@hookimpl
def logits_processor(query):
    if query.name in PROCESSORS:
        return Offer(name=query.name, target=f"sampling_extras.processors:{PROCESSORS[query.name]}")
    return None


@hookimpl
def draft_proposer(query):
    return Offer(name="lookup", target="sampling_extras.lookup:Lookup") if query.method == "lookup" else None
