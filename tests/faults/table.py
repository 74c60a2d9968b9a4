"""The table of docs/reliability.md, made from `subjects`: ``python -m tests.faults.table`` writes it there."""

from __future__ import annotations

from pathlib import Path

from tests.faults.subjects import SUBJECTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults of plugins: made by python -m tests.faults.table -->\n", "<!-- end of it -->\n"
FAULTS = ("raises", "wrong", "hangs", "leaks", "exits", "crashes")
CALLS = {
    "attention_backend": "`attend`, in a step",
    "op_kernel": "a kernel, in a step",
    "sampler": "`__call__`, in a step",
    "draft_proposer": "`propose`, in a step",
    "scheduler_policy": "`key`, when a request is queued",
    "metrics_sink": "`step`, after a step",
    "logits_processor": "`apply`, in a step",
    "grammar_backend": "`compile`, in a thread",
    "fill": "`Grammar.fill`, before a step's sampling",
    "check": "`check`, when a request is read",
    "tokenizer": "`encode`, when a request is read",
    "chat_renderer": "`render`, when a request is read",
    "tool_parser": "`feed`, while an answer is read",
    "reasoning_parser": "`feed`, while an answer is read",
}
HEAD = """| hook | call | raises | wrong type | hangs | leaks | `os._exit` | SIGSEGV |
|---|---|---|---|---|---|---|---|
"""


def table() -> str:
    rows = []
    for place, subject in SUBJECTS.items():
        becomes = {**subject.becomes, "crashes": subject.becomes.get("crashes", subject.becomes["exits"])}
        cells = [f"**{what}**" if (what := becomes[f]) in ("blocks", "dies") else what for f in FAULTS]
        rows.append(f"| `{subject.hook}` | {CALLS[place]} | {' | '.join(cells)} |\n")
    return HEAD + "".join(rows)


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
