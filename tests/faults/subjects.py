"""Where the culprit goes wrong beside running requests, and what becomes of that (docs/reliability.md has it in words).

ends      the engine ends, the cause names the plugin, another engine is started and answers
refused   that request fails or is answered without the plugin; others go on
waits     that request waits as long as the call does; others go on
blocks    so do all requests of that process: open
dies      the process that prompts are read in ends, and all with it: open
goes on   nobody notices
"""

from __future__ import annotations

from typing import Any

import attrs

COMMON = {"max_num_batched_tokens": 64, "max_num_seqs": 4}
STEP = {"leaks": "goes on", "raises": "ends", "wrong": "ends", "hangs": "ends", "exits": "ends", "crashes": "ends"}
REQUEST = {**STEP, "raises": "refused", "wrong": "refused"}
# A sink that raises gets nothing more: that comes last.
SINK = {**{fault: what for fault, what in STEP.items() if fault != "raises"}, "wrong": "goes on", "raises": "goes on"}
FRONT = {"leaks": "goes on", "raises": "refused", "wrong": "refused", "hangs": "blocks", "exits": "dies"}


@attrs.frozen(kw_only=True)
class Subject:
    """``settings``: of an engine that uses what it offers. ``becomes``: fault -> what becomes of it, in this order."""

    hook: str
    becomes: dict[str, str]
    settings: dict[str, Any] = attrs.field(factory=dict, converter=lambda more: {**COMMON, **more})
    named: bool = True  # whether a request that fails alone is told whose fault it was


DRAFTS = {"speculative_config": {"method": "culprit", "num_speculative_tokens": 2}}
PROCESSORS = {"logits_processors": ["culprit"]}
GRAMMARS = {"structured_outputs_config": {"backend": "culprit"}}
SUBJECTS = {
    "attention_backend": Subject(hook="attention_backend", becomes=STEP),
    "op_kernel": Subject(hook="op_kernel", becomes=STEP),
    "sampler": Subject(hook="sampler", becomes=STEP),
    "draft_proposer": Subject(hook="draft_proposer", becomes=STEP, settings=DRAFTS),
    "scheduler_policy": Subject(hook="scheduler_policy", becomes=REQUEST, settings={"scheduling_policy": "culprit"}),
    "metrics_sink": Subject(hook="metrics_sink", becomes=SINK),
    "logits_processor": Subject(hook="logits_processor", becomes=REQUEST, settings=PROCESSORS),
    "grammar_backend": Subject(hook="grammar_backend", becomes={**REQUEST, "hangs": "waits"}, settings=GRAMMARS),
    "fill": Subject(hook="grammar_backend", becomes=REQUEST, settings=GRAMMARS),
    "check": Subject(hook="logits_processor", becomes={**FRONT, "wrong": "goes on"}, settings=PROCESSORS),
    "tokenizer": Subject(hook="tokenizer", becomes=FRONT, settings={"tokenizer_mode": "culprit"}, named=False),
    "chat_renderer": Subject(hook="chat_renderer", becomes=FRONT, named=False),
    "tool_parser": Subject(hook="tool_parser", becomes=FRONT, settings={"tool_call_parser": "culprit"}),
    "reasoning_parser": Subject(hook="reasoning_parser", becomes=FRONT, settings={"reasoning_parser": "culprit"}),
}
"""By the place of the call; the hook's name where it has one such call."""
