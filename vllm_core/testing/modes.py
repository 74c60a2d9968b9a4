"""However tokens reach the model, the logits at every position are the reference's."""

from __future__ import annotations

from vllm_core.testing.case import Case


class Modes:
    """Tests of each variant: batches as the scheduler makes them, pages scattered and full of NaN."""

    def test_a_whole_prompt_gives_the_references_logits(self, case: Case) -> None:
        case.agree_on(case.idle(), case.prompt(75), "one prompt in one step")

    def test_a_ragged_batch_gives_each_prompt_its_own_logits(self, case: Case) -> None:
        served = case.idle()
        rows = [served.row(case.prompt(n)) for n in (1, 33, 16, 7, 50)]
        for row, got in zip(rows, served.step([(row, len(row.ids)) for row in rows]), strict=True):
            case.agree(got, row, f"a prompt of {len(row.ids)} tokens beside four others")
        served.release(*rows)

    def test_a_prompt_in_chunks_gives_the_logits_of_the_whole(self, case: Case) -> None:
        served = case.idle()
        row = served.row(case.prompt(70))
        for tokens in (5, 1, 33, 31):
            case.agree(served.step([(row, tokens)])[0], row, f"a chunk of {tokens} tokens")
        served.release(row)

    def test_decoding_from_pages_beside_a_prefill_gives_the_same_logits(self, case: Case) -> None:
        served = case.idle()
        a, b, c = (served.row(case.prompt(n)) for n in (40, 24, 30))
        served.step([(a, 30), (b, 19)])
        for work in ([(a, 1), (c, 20), (b, 1)], [(b, 1), (a, 1), (c, 9)], [(c, 1), (b, 3), (a, 1)]):
            for (row, tokens), got in zip(work, served.step(work), strict=True):
                case.agree(got, row, f"{tokens} tokens from position {row.computed - tokens} on, others beside")
        served.release(a, b, c)

    def test_a_prefix_found_in_anothers_pages_gives_the_same_logits(self, case: Case) -> None:
        served = case.idle()
        shared = max(1, 32 // served.unit) * served.unit
        ids = case.prompt(shared)
        first = served.row(ids)
        served.step([(first, shared)])
        second = served.row(ids + case.prompt(11, seed=1), prefix_of=first, shared=shared)
        third = served.row(ids + case.prompt(5, seed=2), prefix_of=first, shared=shared)
        for row, got in zip((second, third), served.step([(second, 11), (third, 5)]), strict=True):
            case.agree(got, row, f"after {shared} tokens that another row computed")
        served.release(first, second, third)

    def test_a_preempted_request_computes_the_same_logits_again(self, case: Case) -> None:
        served = case.idle()
        ids = case.prompt(50)
        row = served.row(ids)
        served.step([(row, 37)])
        before = [list(table) for table in row.pages]
        served.release(row)
        other = served.row(case.prompt(45, seed=1))  # takes the row's place and its pages
        case.agree(served.step([(other, 45)])[0], other, "in pages that another row had")
        again = served.row(ids)
        for tokens in (37, 13):
            case.agree(served.step([(again, tokens)])[0], again, "computed again after a preemption")
        assert again.pages != before, "the kit gave the row its own pages back; that proves nothing"
        served.release(other, again)
