"""What a kernel does to memory: it writes where its op writes, and its results are the caller's."""

from __future__ import annotations

from typing import Any

from vllm_core.testing.asked import Asked
from vllm_core.testing.kernel_case import raw, shares


class KernelMemory:
    """Bytes are compared."""

    each: Any

    def test_nothing_is_written_that_the_op_does_not_write(self, asked: Asked, op: str) -> None:
        for made in self.each(asked, op):
            for tokens in made.case.tokens:
                outcome = made.run(made.a_call(tokens, seed=5))
                may, after = set(outcome.call.free) | set(outcome.call.changes), made.bytes_of(outcome.args)
                wrong = [i for i, old in enumerate(outcome.before) if old != after[i] and i not in may]
                assert not wrong, f"{made.case}, {tokens} tokens: argument {wrong} is changed, which belongs to others"

    def test_results_share_no_memory_with_what_must_not_be_overwritten(self, asked: Asked, op: str) -> None:
        """Callers overwrite results; a view of a weight, or of an input that another layer reads, would be lost."""
        for made in self.each(asked, op):
            outcome = made.run(made.a_call(max(made.case.tokens), seed=6))
            for number, result in enumerate(outcome.results):
                for i, argument in enumerate(outcome.args):
                    if i in outcome.call.free or (made.packs and i == made.case.weight):
                        continue
                    assert not shares(result, argument), (
                        f"{made.case}: result {number} lies in the memory of argument {i}"
                    )
                for other in range(number):
                    both = shares(result, outcome.results[other])
                    assert not both, f"{made.case}: results {other} and {number} share memory"

    def test_a_later_call_leaves_earlier_results_as_they_are(self, asked: Asked, op: str) -> None:
        """Work space may be kept from call to call, and by equal queries; results may not lie in it."""
        for made in self.each(asked, op):
            tokens = max(made.case.tokens)
            first = made.run(made.a_call(tokens, seed=7))
            kept = [raw(result) for result in first.results]
            again = next(other for other in self.each(asked, op) if other.query == made.query)
            for kernel, seed in ((made, 8), (again, 9)):
                kernel.run(made.a_call(tokens, seed))
                assert [raw(result) for result in first.results] == kept, (
                    f"{made.case}: the result of a call is overwritten by the next one"
                )
