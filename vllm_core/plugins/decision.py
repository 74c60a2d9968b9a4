"""A question to the plugins, their answers, and what was decided."""

from __future__ import annotations

from typing import Any

import attrs

from vllm_core.plugin import Offer, load_target
from vllm_core.plugins.errors import PluginError
from vllm_core.plugins.records import Provided
from vllm_core.plugins.witness import witnessed

__all__ = ["Answer", "Decision", "Question"]


@attrs.frozen
class Question:
    """One query to the plugins of one hook."""

    hook: str
    query: Any
    named: str | None = None  # the offer that the user asked for
    asked_by: str = attrs.field(default="", kw_only=True)  # how: "--attention-backend"; for messages
    first: str = attrs.field(default="", kw_only=True)  # a plugin that goes before all ranks: the one serving the model

    @property
    def what(self) -> str:
        """``attention backend "x" was asked for (--attention-backend)``."""
        word = self.hook.replace("_", " ")
        return f'{word} "{self.named}" was asked for' + (f" ({self.asked_by})" if self.asked_by else "")


@attrs.frozen(kw_only=True)
class Answer:
    """One plugin's answer. Without offer and refusal it said that the question is not its own."""

    plugin: str
    distribution: str
    version: str
    name: str = ""  # of the offer, made or refused
    offer: Offer | None = None
    refusal: str = ""  # the reason
    remedy: str = ""
    lacks: str = ""  # the partner a refusal names, as "kind:name"
    error: BaseException | None = attrs.field(default=None, eq=False, repr=False)  # raised, or an answer of no use
    note: str = ""  # what became of it: why an offer lost, where a lacking partner is

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def label(self) -> str:
        """``triton (vllm-plugin-triton 0.3.0)``."""
        return f"{self.name or self.plugin} ({self.owner})"


@attrs.frozen(kw_only=True)
class Decision:
    """Who won a question, and why."""

    hook: str
    query: Any
    named: str | None = None
    provided: Provided  # its entry is the Offer
    answers: tuple[Answer, ...] = ()
    why: str = ""

    @property
    def offer(self) -> Offer:
        return self.provided.entry

    def load(self) -> Any:
        """Import the target. An error says whose it is."""
        try:
            with witnessed(f"{self.offer.target} of {self.provided.owner} was imported"):
                return load_target(self.offer.target)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f'{self.hook.replace("_", " ")} "{self.offer.name}" was chosen and its target cannot be imported.',
                by=f"{self.provided.owner}, plugin {self.provided.plugin}, target {self.offer.target}",
                why=f"{type(error).__name__}: {error}",
                instead=_others(self),
            ) from error


def _others(decision: Decision) -> str:
    others = [a.label for a in decision.answers if a.offer and a.offer is not decision.offer]
    name = decision.offer.name
    return f'block = ["{decision.hook}:{name}"] leaves the choice to {", ".join(others)}' if others else ""
