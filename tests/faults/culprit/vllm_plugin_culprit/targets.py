"""What the culprit offers: the core's own implementations, each going wrong in one of its calls (`fault.strike`).

Each is named after its hook; ``PLACE`` of a call is its hook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vllm_core.engine.tokenizer import load_tokenizer
from vllm_core.interfaces.proposer import Drafts
from vllm_core.interfaces.reasoning_parser import ReasoningParse
from vllm_core.interfaces.tool_parser import ToolParse
from vllm_core.layers.reference_attention import ReferenceAttention
from vllm_core.ops import reference_kernel
from vllm_core.ops.sampler import ReferenceSampler
from vllm_plugin_culprit.fault import strike


class attention_backend(ReferenceAttention):
    def attend(self, *args: Any, **kwargs: Any) -> Any:
        return strike("attention_backend", super().attend(*args, **kwargs))


def op_kernel(query: Any) -> Callable[..., Any]:
    plain = reference_kernel(query)
    return lambda *args, **kwargs: strike("op_kernel", plain(*args, **kwargs))


class sampler(ReferenceSampler):
    def __call__(self, logits: Any, params: Any) -> Any:
        return strike("sampler", super().__call__(logits, params))


class scheduler_policy:
    def __init__(self, query: Any) -> None: ...

    def key(self, request: Any) -> tuple[float, ...]:
        return strike("scheduler_policy", (request.arrival,))


class metrics_sink:
    def __init__(self, query: Any) -> None: ...

    def step(self, stats: Any) -> None:
        strike("metrics_sink", None)

    def request(self, stats: Any) -> None: ...

    def close(self) -> None: ...


class draft_proposer:
    taps: tuple[int, ...] = ()
    needs_hidden = False

    def __init__(self, num_drafts: int, config: Mapping[str, Any]) -> None:
        self.num_drafts = num_drafts

    def bind(self, model: Any, plan: Any) -> None: ...

    def propose(self, rows: Any, view: Any, hidden: Any, taps: Any) -> Any:
        ids = torch.zeros(len(rows), self.num_drafts, dtype=torch.int32, device=rows.device)
        return strike("draft_proposer", Drafts(ids=ids))


class logits_processor:
    keeps_argmax = False
    needs_ids = False

    def __init__(self, query: Any) -> None: ...

    @classmethod
    def check(cls, params: Mapping[str, Any], query: Any) -> bool:
        return strike("check", bool(params.get("bad")))

    def take(self, row: int, params: Mapping[str, Any], prompt_ids: Sequence[int]) -> None: ...

    def apply(self, logits: Any, rows: Any, ends: Any, view: Any, ids: Any) -> Any:
        return strike("logits_processor", logits)


class Tokens:
    def __init__(self, plain: Any) -> None:
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:
        ids = self._plain.encode(text, add_special_tokens)
        return strike("tokenizer", ids) if "bad" in text else ids


def tokenizer(files: Any) -> Any:
    return Tokens(load_tokenizer(files))


class Rendered:
    def render(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        text = " ".join(message["content"] for message in messages)
        return strike("chat_renderer", text) if "bad" in text else text


def chat_renderer(tokenizer: Any) -> Any:
    return Rendered()


class tool_parser:
    def __init__(self, tokenizer: Any, tools: Any) -> None:
        self.bad = "bad" in str(tools)

    def prepare(self, options: dict[str, Any]) -> dict[str, Any]:
        return options

    def parse(self, text: str) -> Any:
        return strike("tool_parser", ToolParse(content=text)) if self.bad else ToolParse(content=text)

    def feed(self, text: str, ids: Sequence[int]) -> Any:
        return self.parse(text)

    def finish(self) -> Any:
        return ToolParse()


class reasoning_parser:
    def __init__(self, tokenizer: Any, options: dict[str, Any]) -> None:
        self.bad = bool(options.get("bad"))

    def prepare(self, options: dict[str, Any]) -> dict[str, Any]:
        return options

    def starts_inside(self, prompt_ids: Sequence[int]) -> bool:
        return False

    def ended(self, output_ids: Sequence[int]) -> bool:
        return True

    def parse(self, text: str) -> Any:
        said = ReasoningParse(content=text)
        return strike("reasoning_parser", said) if self.bad else said

    def feed(self, text: str, ids: Sequence[int]) -> Any:
        return self.parse(text)

    def finish(self) -> Any:
        return ReasoningParse()


class Everything:
    """A grammar that allows all."""

    finished = False

    def start(self) -> Any:
        return self

    def accept(self, ids: Sequence[int]) -> int:
        return len(ids)

    def rollback(self, count: int) -> None: ...

    def fill(self, mask: Any) -> None:
        strike("fill", mask)[:] = -1


class grammar_backend:
    apart = False

    def __init__(self, vocabulary: Any, options: Any) -> None: ...

    def compile(self, spec: Any) -> Any:
        return strike("grammar_backend", Everything())
