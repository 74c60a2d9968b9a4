"""Choosing among plugins: ask everyone, keep what fits together, take the best, say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.interfaces.device import Device
from vllm_core.plugins import complain, native
from vllm_core.plugins.ask import ask
from vllm_core.plugins.catalog import Catalog
from vllm_core.plugins.decision import Answer, Decision, Question
from vllm_core.plugins.needs import Needs
from vllm_core.plugins.order import Candidate, order
from vllm_core.plugins.records import Provided, kind_of
from vllm_core.plugins.sets import best_sets
from vllm_core.plugins.verdict import noted, reason

__all__ = ["Selector"]


class Selector:
    """Makes the choices of one engine and remembers them in ``decisions``."""

    def __init__(
        self,
        catalog: Catalog,
        device: Device | None = None,
        prefer: Mapping[str, Sequence[str]] | None = None,
        needs: Sequence[Needs] = (),
    ) -> None:
        self.catalog = catalog
        self.needs = tuple(needs)  # capabilities that settings ask for
        self.device = device  # whose recorded figures count; None: none do
        self.decisions: list[Decision] = []
        self._prefer = dict(prefer or {})  # goes before the policy's

    def prefer(self, hook: str) -> tuple[str, ...]:
        """The user's order for a hook."""
        return tuple(self._prefer.get(hook) or self._prefer.get(kind_of(hook)) or self.catalog.prefer(hook))

    def choose(
        self, hook: str, query: Any, named: str | None = None, *, asked_by: str = "", first: str = ""
    ) -> Decision:
        """The best offer; ``named`` must be it or this fails. ``asked_by`` and ``first`` as in ``Question``."""
        return self.choose_set([Question(hook, query, named, asked_by=asked_by, first=first)])[0]

    def choose_set(self, questions: Sequence[Question]) -> list[Decision]:
        """One offer for each question, compatible with each other and with all earlier decisions.

        The set with the highest sum of ranks wins; among equal sums an earlier question's better
        offer counts before a later one's. Sets that nothing tells apart are an error.
        """
        answers = [self._ask(question) for question in questions]
        candidates = [self._candidates(q, a) for q, a in zip(questions, answers, strict=True)]
        chosen = self._solve(questions, candidates)
        for i, question in enumerate(questions):
            failed = [a for a in answers[i] if a.error and a.name == question.named]
            if failed and question.named is not None:
                raise complain.failed(
                    question, failed[0], self._instead(i, questions, answers, candidates)
                ) from failed[0].error
        if not chosen:
            raise self._impossible(questions, answers, candidates)
        if len(chosen) > 1:
            raise complain.ambiguous(questions, chosen)
        present = [(d.hook, d.offer) for d in self.decisions]
        decisions = [
            Decision(
                hook=question.hook,
                query=question.query,
                named=question.named,
                provided=_provided(winner.answer),
                answers=noted(self.catalog, i, questions, answers[i], candidates[i], chosen[0], present),
                why=reason(question, winner, candidates[i]),
            )
            for i, (question, winner) in enumerate(zip(questions, chosen[0], strict=True))
        ]
        self.decisions += decisions
        return decisions

    def choose_all(self, hook: str, query: Any) -> list[Decision]:
        """Every offer, best first, for hooks where more than one is used; [] if nobody offers."""
        question = Question(hook, query)
        answers = self._ask(question)
        decisions = [
            Decision(
                hook=hook, query=query, provided=_provided(c.answer), answers=tuple(answers), why="every offer counts"
            )
            for c in order(question, answers, self.prefer(hook), self.device)
        ]
        self.decisions += decisions
        return decisions

    def choose_model(self, query: Any, named: str | None = None) -> Decision:
        """Who serves a model: plugins that list one of its architectures, then offers of the hook ``model``.

        ``named`` asks for an offer of the hook by name, whatever is listed.
        """
        if named is None:
            decision, answers = native.listed(self, query)
            if decision is None:
                offers = ask(self.catalog, Question("model", query))
                if not any(answer.offer for answer in offers):
                    raise native.nobody(self, query, [*answers, *offers])
                chosen = self.choose("model", query)
                why = f"{native.unlisted(self, query)}; {chosen.why}"
                decision = attrs.evolve(chosen, answers=(*answers, *chosen.answers), why=why)
                self.decisions.pop()
            self.decisions.append(decision)
            return decision
        return self.choose("model", query, named)

    def _ask(self, question: Question) -> list[Answer]:
        answers = ask(self.catalog, question)
        for need in self.needs:
            answers = need.only(question.hook, answers)
        return answers

    def _candidates(self, question: Question, answers: list[Answer]) -> list[Candidate]:
        found = order(question, answers, self.prefer(question.hook), self.device)
        if question.named is None:
            return found
        found = [c for c in found if c.answer.name == question.named]
        if len(found) > 1:
            # One name, several owners: only the user can say whose is meant, not a rank.
            owners = [(c.answer.plugin, c.answer.distribution) for c in found]
            for wanted in self.prefer(question.hook):
                for candidate, owner in zip(found, owners, strict=True):
                    if wanted in owner:
                        return [candidate]
            raise complain.shared_name(question, [c.answer for c in found])
        return found

    def _solve(self, questions: Sequence[Question], candidates: Sequence[Sequence[Candidate]]) -> list:
        present = [(d.hook, d.offer) for d in self.decisions]
        return best_sets([q.hook for q in questions], candidates, present) if all(candidates) else []

    def _impossible(
        self, questions: Sequence[Question], answers: list[list[Answer]], candidates: list[list[Candidate]]
    ) -> Exception:
        for i, question in enumerate(questions):
            if not candidates[i]:
                instead = self._instead(i, questions, answers, candidates)
                return complain.no_offer(self.catalog, question, answers[i], instead)
        return complain.incompatible(questions, candidates, [(d.hook, d.offer) for d in self.decisions])

    def _instead(
        self, i: int, questions: Sequence[Question], answers: list[list[Answer]], candidates: list[list[Candidate]]
    ) -> Candidate | None:
        """What question ``i`` would get if the user named nothing: found by the same search, so that it is true."""
        hook, named = questions[i].hook, questions[i].named
        if named is None:
            return None
        free = [
            order(q, a, self.prefer(hook), self.device) if (q.hook, q.named) == (hook, named) else c
            for q, a, c in zip(questions, answers, candidates, strict=True)
        ]
        without = self._solve(questions, free)
        return without[0][i] if len(without) == 1 else None


def _provided(answer: Answer) -> Provided:
    return Provided(answer.offer, answer.plugin, answer.distribution, answer.version)
