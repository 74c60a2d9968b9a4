"""Requests with grammars in a whole engine, on a tiny model and a toy backend."""

from __future__ import annotations

import pytest

from tests.grammar.toy import choices
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, SamplingParams
from vllm_core.engine.errors import RequestError
from vllm_core.engine.parsing import Made
from vllm_core.interfaces.queries import LogitsProcessorQuery
from vllm_core.runner.chosen import Chosen

TEXTS = ["The answer is yes.", "The answer is no.", "Certainly not, he said, and left.", "ab", "The"]
SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64, "max_model_len": 200}
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
MODES = {
    "overlapped": {},
    "plain loop": {"async_scheduling": False},
    "drafts": {"speculative_config": DRAFTS},
    "drafts, plain loop": {"speculative_config": DRAFTS, "async_scheduling": False},
    "small steps": {"max_num_batched_tokens": 8},
}
# What was drafted before is drafted again: drafts of every text, right ones and wrong ones.
PROMPT = " ".join(TEXTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model()))


@pytest.fixture
def toy(monkeypatch):
    """Engines that are made now take their grammars from backends of tests.grammar.toy."""

    def use(*backends, **config):
        chosen = choices(*(backends or ["Toy"]), **config)
        monkeypatch.setattr("vllm_core.engine.fit.choose_grammars", lambda *_: chosen)

    use()
    return use


@pytest.fixture
def make(folder, toy):
    made = []

    def build(**settings):
        made.append(LLM(folder, **{**SETTINGS, **settings}))
        return made[-1]

    yield build
    for llm in made:
        llm.shutdown()


def held(*texts, **more):
    fields = {"max_tokens": 60, "temperature": 0, **more}
    return SamplingParams(structured_outputs={"choice": list(texts or TEXTS)}, **fields)


def free(i):
    return SamplingParams(temperature=0.9 * (i % 2), seed=i, max_tokens=20, ignore_eos=True)


def run(llm, params, prompt=PROMPT):
    return llm.generate([prompt] * len(params), params, use_tqdm=False)


@pytest.mark.parametrize("mode", MODES)
def test_held_requests_conform_and_free_ones_beside_them_are_as_they_were(make, mode):
    llm = make(**MODES[mode])
    alone = [o.outputs[0].token_ids for o in run(llm, [free(i) for i in range(3)])]
    mixed = [free(0), held(), free(1), held(temperature=1.5, seed=1), held(temperature=1.5, seed=2), free(2)]
    outputs = run(llm, mixed)
    assert [outputs[i].outputs[0].token_ids for i in (0, 2, 5)] == alone
    for i in (1, 3, 4):
        assert outputs[i].outputs[0].finish_reason == "stop"
        assert outputs[i].outputs[0].text in TEXTS


def test_drafts_change_no_token(make):
    params = [held(temperature=t, seed=s) for t in (0, 1.0, 3.0) for s in range(4)]
    plain = [o.outputs[0].token_ids for o in run(make(), params)]
    drafted = run(make(speculative_config=DRAFTS), params)
    assert [o.outputs[0].token_ids for o in drafted] == plain
    assert sum(o.metrics.num_accepted_drafts for o in drafted) > 5


def test_preempted_requests_go_on_where_they_were(make):
    texts = [text * 4 for text in TEXTS]
    params = [held(*texts, temperature=2.0, seed=seed, max_tokens=150) for seed in range(6)]
    whole = run(make(), params, "ab")
    squeezed = run(make(kv_cache_memory=1 << 16, block_size=16), params, "ab")
    assert sum(o.metrics.num_preemptions for o in squeezed) > 0
    assert [o.outputs[0].token_ids for o in squeezed] == [o.outputs[0].token_ids for o in whole]
    assert {o.outputs[0].text for o in squeezed} <= {*texts}


@pytest.mark.parametrize("mode", ["overlapped", "plain loop", "drafts"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("compile raises", "KeyError: 'compile'"),
        ("compile refuses", "it refuses this"),
        ("start raises", "KeyError: 'start'"),
        ("fill raises", "KeyError: 'fill'"),
        ("accept raises", "KeyError: 'accept'"),
        ("no way on", "allows no token of this vocabulary"),
        ("fill is slow", "which holds up everybody"),
    ],
)
def test_a_grammar_that_fails_ends_its_own_request(make, fault, said, mode):
    llm = make(**MODES[mode])
    (alone,) = run(llm, [free(1)])
    outputs = run(llm, [free(1), held(*TEXTS, fault), held()])
    assert outputs[0].outputs[0].token_ids == alone.outputs[0].token_ids
    assert outputs[1].outputs[0].finish_reason == "error"
    assert said in outputs[1].error
    assert outputs[2].outputs[0].text in TEXTS
    assert run(llm, [held()])[0].outputs[0].text in TEXTS
    core = llm._engine.core
    while core.has_work:
        core.step()
    assert not core.roster.preparing
    assert len(core.roster.free_rows) == SETTINGS["max_num_seqs"]


def test_several_samples_have_a_state_each_and_fail_together(make):
    llm = make()
    (output,) = run(llm, [held(n=5, temperature=3.0, seed=3)])
    assert {sample.text for sample in output.outputs} <= {*TEXTS}
    assert len({sample.text for sample in output.outputs}) > 1
    with_others = run(llm, [held("x", "compile refuses", n=3, temperature=1.0), free(1)])
    assert [sample.finish_reason for sample in with_others[0].outputs] == ["error"] * 3


def test_a_request_that_is_given_up_while_its_grammar_is_compiled_leaves_nothing(make, toy):
    toy(("Toy", {"seconds": 0.3}))
    llm = make()
    engine = llm._engine
    engine.add_request("a", [1, 2, 3], held())
    engine.add_request("b", [1, 2, 3], held(n=2, temperature=1.0))
    engine.step()
    assert len(engine.core.roster.preparing) >= 2
    engine.abort("a")
    engine.abort("b")
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert {o.request_id for o in outputs} == {"a", "b"}
    assert {s.finish_reason for o in outputs for s in o.outputs} == {"abort"}
    roster = engine.core.roster
    assert not roster.preparing
    assert not roster.requests
    assert len(roster.waiting) == 0
    assert len(roster.free_rows) == SETTINGS["max_num_seqs"]


def test_others_run_while_a_grammar_is_compiled(make, toy):
    toy(("Toy", {"seconds": 0.5}))
    engine = make()._engine
    engine.add_request("held", [1, 2, 3], held())
    engine.add_request("free", [1, 2, 3], free(0))
    order = []
    while engine.has_work:
        order += [o.request_id for o in engine.step() if o.finished]
    assert order == ["free", "held"]


def test_the_queue_counts_requests_whose_grammar_is_compiled(make, toy):
    toy(("Toy", {"seconds": 0.5}))
    engine = make(max_waiting_requests=0)._engine
    for i in range(SETTINGS["max_num_seqs"]):
        engine.add_request(str(i), [1, 2, 3], held(f"text {i}"))
    with pytest.raises(RequestError, match="the queue is full"):
        engine.add_request("one more", [1, 2, 3], held())


# ---- beside what else a request may ask for


def test_a_grammar_ends_an_output_whatever_else_wants_it_to_go_on(make):
    llm = make()
    for more in ({"ignore_eos": True}, {"min_tokens": 50}, {"min_tokens": 50, "ignore_eos": True}):
        (output,) = run(llm, [held(**more)])
        assert output.outputs[0].text in TEXTS
        assert output.outputs[0].finish_reason == "stop"


def test_minimum_lengths_hold_where_the_grammar_lets_them(make):
    llm = make()
    tokenizer = llm.get_tokenizer()
    short = len(tokenizer.encode("The", add_special_tokens=False))
    bias = {tokenizer.eos_token_ids[0]: 100.0}  # as soon as it may end, it ends
    texts = ["The", "The answer is yes."]
    assert run(llm, [held(*texts, logit_bias=bias)])[0].outputs[0].text == "The"
    assert run(llm, [held(*texts, logit_bias=bias, min_tokens=short + 1)])[0].outputs[0].text == texts[1]


def test_no_bias_penalty_or_list_of_tokens_gets_past_a_grammar(make):
    llm = make()
    wild = [
        {"logit_bias": dict.fromkeys(range(0, 300, 3), 100.0)},
        {"allowed_token_ids": [5, 6, 7]},
        {"bad_words": ["The", "answer", "yes"]},
        {"repetition_penalty": 5.0, "presence_penalty": 2.0, "temperature": 1.0},
        {"top_k": 1, "temperature": 2.0},
        {"top_p": 0.01, "min_p": 0.5, "temperature": 2.0},
    ]
    for output in run(llm, [held(**more) for more in wild]):
        assert output.outputs[0].text in TEXTS


def test_a_stop_string_and_a_stop_token_end_an_output_before_its_grammar(make):
    llm = make()
    (output,) = run(llm, [held("The answer is yes.", stop=[" is"])])
    assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("The answer", "stop")


def test_log_probabilities_are_the_model_s_own(make):
    llm = make()
    (output,) = run(llm, [held("ab", logprobs=2)])
    lines = output.outputs[0].logprobs
    assert [next(iter(line)) for line in lines] == output.outputs[0].token_ids
    for line, token in zip(lines, output.outputs[0].token_ids, strict=True):
        assert line[token].logprob < 0
        assert line[token].rank >= 1


def test_an_output_may_end_at_its_limit_within_the_grammar(make):
    (output,) = run(make(), [held("The answer is yes.", max_tokens=2)])
    found = output.outputs[0]
    assert found.finish_reason == "length"
    assert "The answer is yes.".startswith(found.text)


# ---- what is refused before it runs


def test_a_kind_without_a_backend_is_refused_with_the_reason(make):
    with pytest.raises(RequestError, match="nobody here compiles a regex"):
        run(make(), [SamplingParams(structured_outputs={"regex": "a"})])


def test_a_call_whose_only_request_cannot_be_compiled_raises(make):
    llm = make()
    for _ in range(2):
        with pytest.raises(RequestError, match="it refuses this"):
            run(llm, [held("compile refuses")])


def test_without_a_tokenizer_there_are_no_grammars(make):
    llm = make(skip_tokenizer_init=True)
    with pytest.raises(RequestError, match="grammars are about text"):
        llm.generate({"prompt_token_ids": [1, 2]}, held(), use_tqdm=False)


# ---- behind reasoning


class Thinks:
    """Reasoning up to the first full stop, as a parser of the tiny model's would have it."""

    def __init__(self, tokenizer, options):
        self.tokenizer, self.inside = tokenizer, options.get("thinks", True)

    def prepare(self, options):
        return options

    def starts_inside(self, prompt_ids):
        return self.inside

    def ended(self, output_ids):
        return not self.inside or len(output_ids) >= 7

    def feed(self, text, ids):
        from vllm_core.interfaces.reasoning_parser import ReasoningParse

        return ReasoningParse(content=text)

    def finish(self):
        from vllm_core.interfaces.reasoning_parser import ReasoningParse

        return ReasoningParse()


@pytest.mark.parametrize("mode", ["overlapped", "drafts"])
@pytest.mark.parametrize(("thinks", "ahead", "free_tokens"), [(True, False, 7), (False, False, 0), (True, True, 0)])
def test_a_grammar_begins_behind_the_reasoning(make, toy, monkeypatch, mode, thinks, ahead, free_tokens):
    toy("Toy", enable_in_reasoning=ahead)
    llm = make(**MODES[mode])

    def reasoning(self, hook, given):
        if hook == "tool_parser":
            return None
        return Made(lambda: Thinks(llm.get_tokenizer(), {**given, "thinks": thinks}), "thinks")

    monkeypatch.setattr("vllm_core.engine.parsers.Parsers._made", reasoning)
    eos = llm.get_tokenizer().eos_token_ids[0]
    params = [held(temperature=t, seed=i, logit_bias={eos: -100.0}) for i, t in enumerate((0, 1.0, 1.0))]
    messages = [[{"role": "user", "content": PROMPT}]] * 3
    for output in llm.chat(messages, params, chat_template="{{ messages[0].content }}", use_tqdm=False):
        found = output.outputs[0]
        assert not output.error
        tail = llm.get_tokenizer().decode(found.token_ids[free_tokens:])
        assert tail in TEXTS
        assert found.finish_reason == "stop"
        if free_tokens:
            assert found.text not in TEXTS


class Forces:
    """A logits processor that wants token 5, always, and nothing else; with ``soft`` it only makes all logits alike."""

    keeps_argmax, needs_ids = False, False

    def __init__(self, query):
        self.soft = query.options.get("soft")

    @classmethod
    def check(cls, params, query):
        return True

    def take(self, row, params, prompt_ids):
        """Nothing is remembered."""

    def apply(self, logits, rows, ends, view, ids):
        logits.fill_(0.0 if self.soft else float("-inf"))
        logits[:, 5] = 1.0
        return logits


@pytest.mark.parametrize("soft", [True, False])
def test_no_logits_processor_gets_past_a_grammar(make, monkeypatch, soft):
    query = LogitsProcessorQuery(name="forces", vocab_size=1, max_rows=8, device=None, options={"soft": soft})
    chosen = [Chosen("forces", "tests.grammar.test_held_outputs:Forces", query)]
    monkeypatch.setattr("vllm_core.engine.fit.choose_processors", lambda *_: chosen)
    llm = make()
    outputs = run(llm, [held(), held(temperature=2.0, seed=1), SamplingParams(max_tokens=3, temperature=0)])
    assert {o.outputs[0].text for o in outputs[:2]} <= {*TEXTS}
    assert outputs[2].outputs[0].token_ids == [5, 5, 5]


@pytest.mark.parametrize(("first", "whole"), [("ab", True), ("#", False)])
def test_an_answer_that_began_without_reasoning_is_held_from_its_beginning_where_the_grammar_allows_that(
    make, monkeypatch, first, whole
):
    """The first token shows that there is no reasoning: it is free, and the answer's."""
    llm = make()
    tokenizer = llm.get_tokenizer()
    token = tokenizer.encode(first, add_special_tokens=False)[0]

    class Perhaps(Thinks):
        def ended(self, output_ids):
            return len(output_ids) >= 1

    def reasoning(self, hook, given):
        return None if hook == "tool_parser" else Made(lambda: Perhaps(tokenizer, {}), "perhaps")

    monkeypatch.setattr("vllm_core.engine.parsers.Parsers._made", reasoning)
    texts = [first + text for text in TEXTS] if whole else TEXTS
    params = held(*texts, logit_bias={token: 100.0})
    (output,) = llm.chat(
        [{"role": "user", "content": "x"}], params, chat_template="{{ messages[0].content }}", use_tqdm=False
    )
    found = output.outputs[0]
    assert found.token_ids[0] == token
    assert (found.text if whole else tokenizer.decode(found.token_ids[1:])) in texts
