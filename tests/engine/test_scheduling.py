"""Whatever the scheduler does, a request's tokens are those it gets alone."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.fake_device import VOCAB, FakeDevice, plain
from tests.engine.harness import make_core, run
from vllm_core.engine.sampling_params import SamplingParams


@attrs.frozen
class Ask:
    prompt: tuple[int, ...]
    max_tokens: int
    stop: tuple[int, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    at: int = 0  # step before which it arrives
    abort_at: int | None = None

    @property
    def params(self):
        return SamplingParams(
            max_tokens=self.max_tokens, stop_token_ids=self.stop, temperature=self.temperature, seed=self.seed
        )

    def answer(self, max_len):
        return plain(self.prompt, self.max_tokens, self.stop, max_len, self.temperature, self.seed)


# Few different tokens in the prompts, so that prefixes are shared by chance.
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=40).map(tuple)
asks = st.lists(
    st.builds(
        Ask,
        prompt=prompts,
        max_tokens=st.integers(1, 20),
        stop=st.lists(st.integers(0, VOCAB - 1), max_size=8).map(tuple),
        temperature=st.sampled_from([0.0, 0.7]),
        seed=st.integers(0, 3),
        at=st.integers(0, 12),
    ),
    min_size=1,
    max_size=12,
)
devices = st.fixed_dictionaries(
    {
        "block_size": st.sampled_from([1, 2, 4, 5]),
        "num_pages": st.integers(20, 120),
        "max_rows": st.integers(1, 8),
        "num_drafts": st.sampled_from([0, 0, 1, 3]),
        "accept": st.sampled_from([0.0, 0.5, 1.0]),
        "window": st.sampled_from([None, None, 3, 8]),
        "slow": st.booleans(),
    }
)
engines = st.fixed_dictionaries(
    {
        "budget": st.integers(5, 40),
        "overlapped": st.booleans(),
        "caching": st.booleans(),
        "max_len": st.integers(45, 64),
    }
)


def answer_all(asks, device, engine):
    core = make_core(FakeDevice(**device), **engine)
    asked = {}

    def between(core, i):
        for name, ask in enumerate(asks):
            if str(name) not in asked and (ask.at <= i or not core.has_work):
                asked[str(name)] = ask
                try:
                    core.add_request(str(name), list(ask.prompt), ask.params)
                except ValueError as error:
                    assert "must fit" in str(error)  # noqa: PT017
                    asked[str(name)] = None
            elif ask.abort_at is not None and i == ask.abort_at:
                core.abort(str(name))

    outputs = run(core, between)
    assert len(asked) == len(asks)
    return core, {n: (ask, outputs[n]) for n, ask in asked.items() if ask is not None}


@given(asks=asks, device=devices, engine=engines)
@settings(max_examples=300, deadline=None)
def test_any_mix_on_any_engine_gives_each_request_what_it_gets_alone(asks, device, engine):
    core, answers = answer_all(asks, device, engine)
    for ask, output in answers.values():
        expected = ask.answer(core.roster.max_len)
        assert output.outputs[0].token_ids == expected
        assert output.prompt_token_ids == list(ask.prompt)
        stopped = expected[-1] in ask.stop
        assert output.outputs[0].finish_reason == ("stop" if stopped else "length")
        assert output.outputs[0].stop_reason == (expected[-1] if stopped else None)
