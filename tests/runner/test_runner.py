"""The step: from plans to tokens through rows, pages and the toy model."""

import pytest
import torch

from vllm_core.interfaces.steps import PageCopy, RowSampling

from .toy import Driver, Request, make_runner

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [7], [11, 12, 13, 14, 15], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4]]
RANDOM = RowSampling(temperature=0.9, top_k=12, top_p=0.95, seed=7)


def greedy_reference(model, ids, count):
    ids, start = list(ids), len(ids)
    for _ in range(count):
        ids.append(int(model.whole(ids)[-1].argmax()))
    return ids[start:]


def test_a_batch_of_requests_decodes_what_each_decodes_alone_without_pages():
    runner = make_runner()
    outputs = Driver(runner).generate([Request(i, list(p)) for i, p in enumerate(PROMPTS)], 12)
    assert outputs == [greedy_reference(runner.model, p, 12) for p in PROMPTS]
    assert len({tuple(o) for o in outputs}) == len(PROMPTS)
