"""Where in an output the reasoning ends, however many ids come at once."""

from __future__ import annotations

import pytest

from vllm_core.runner.reasoning_gate import ReasoningGate

END = 9


class Parser:
    """Reasoning up to id 9, unless the prompt has ended it. It looks at new ids only, as parsers may."""

    def __init__(self):
        self.inside, self.seen, self.over = True, 0, False

    def starts_inside(self, prompt_ids):
        self.inside = END not in prompt_ids
        return self.inside

    def ended(self, output_ids):
        self.over = self.over or not self.inside or END in output_ids[self.seen :]
        self.seen = len(output_ids)
        return self.over


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 100])
def test_the_grammar_begins_behind_the_id_that_ends_the_reasoning(at_once):
    output = [1, 2, 3, 4, END, 6, 7, 8, END, 1, 2]
    gate, found = ReasoningGate(Parser, [5]), None
    for end in range(0, len(output) + at_once, at_once):
        found = gate.look(output[:end])
        if found is not None:
            break
        assert END not in output[:end]
    assert found == 5


def test_a_prompt_that_has_ended_it_leaves_the_whole_output():
    assert ReasoningGate(Parser, [5, END]).look([]) == 0
    assert ReasoningGate(Parser, [5, END]).look([1, 2, 3]) == 0


def test_reasoning_that_goes_on_gives_no_place():
    gate = ReasoningGate(Parser, [])
    assert [gate.look([1] * n) for n in range(5)] == [None] * 5
