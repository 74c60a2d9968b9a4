"""``LLM``'s methods take vLLM's arguments: they act, or are refused by name with what to use instead."""

import pytest

from tests.loading.checkpoints import greedy
from vllm_core import LLM, SamplingParams
from vllm_core.engine.missing import NOT_YET

GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(str(folder)) as llm:
        yield llm


def test_lower_priorities_run_first_where_the_policy_heeds_them(folder):
    settings = {"scheduling_policy": "priority", "max_num_seqs": 1, "async_scheduling": False}
    with LLM(str(folder), **settings) as llm:
        outputs = llm.generate([[5], [6], [7]], GREEDY, priority=[2, 0, 1], use_tqdm=False)
    finished = [output.metrics.finished_time for output in outputs]
    assert finished[1] < finished[2] < finished[0]


def test_priorities_that_the_policy_would_not_heed_are_refused(llm):
    outputs = llm.generate([[5], [6]], GREEDY, priority=0, use_tqdm=False)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [4, 4]
    with pytest.raises(ValueError, match=r'instead start the engine with scheduling_policy="priority"'):
        llm.generate([[5], [6]], GREEDY, priority=[0, 1], use_tqdm=False)


@pytest.mark.parametrize("priority", [[1], [1, 2, 3], "12", [1, None], [1.0, 2.0], [True, False]])
def test_priorities_that_are_no_number_for_each_prompt_are_refused(llm, priority):
    with pytest.raises(ValueError, match=r"priorit"):
        llm.generate([[5], [6]], GREEDY, priority=priority, use_tqdm=False)


def test_no_adapter_is_granted_and_one_is_refused(llm, model):
    for none in (None, [None]):
        (output,) = llm.generate([[5]], GREEDY, lora_request=none, use_tqdm=False)
        assert output.outputs[0].token_ids == greedy(model, [5], 4)
    for call in (llm.generate, llm.chat):
        with pytest.raises(ValueError, match="lora_request: adapters are not built yet"):
            call(MESSAGES, GREEDY, lora_request=object(), use_tqdm=False)


def test_special_tokens_are_added_unless_the_call_says_no(llm):
    ids = llm.get_tokenizer().encode
    for add in (True, False):
        (output,) = llm.generate("Hi", GREEDY, tokenization_kwargs={"add_special_tokens": add}, use_tqdm=False)
        assert output.prompt_token_ids == ids("Hi", add_special_tokens=add)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"truncate_prompt_tokens": 3}, r"instead SamplingParams\(truncate_prompt_tokens"),
        ({"padding": True}, "tokenization_kwargs has no 'padding'"),
        ({"add_special_tokens": 1}, "add_special_tokens must be true or false"),
    ],
)
def test_other_ways_to_tokenize_are_refused(llm, given, message):
    with pytest.raises(ValueError, match=message):
        llm.generate("Hi", GREEDY, tokenization_kwargs=given, use_tqdm=False)


def test_chat_takes_what_vllm_does(llm):
    template = "{{ greeting }}{% for m in messages %}{{ m.content }}{% endfor %}{{ tools is none }}"
    (output,) = llm.chat(
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        GREEDY,
        False,
        None,
        chat_template=template,
        chat_template_content_format="string",
        add_generation_prompt=True,
        continue_final_message=False,
        tools=None,
        chat_template_kwargs={"greeting": "Oh: "},
        mm_processor_kwargs=None,
        tokenization_kwargs=None,
    )
    assert output.prompt == "Oh: HiTrue"
    assert len(output.outputs[0].token_ids) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mm_processor_kwargs": {"x": 1}}, "images, audio and video are not supported yet"),
        ({"tokenization_kwargs": {"add_special_tokens": True}}, "writes the special tokens itself"),
        ({"chat_templte": "{{ x }}"}, "did you mean 'chat_template'"),
        ({"add_generation_promt": False}, "did you mean 'add_generation_prompt'"),
    ],
)
def test_arguments_of_chat_without_effect_are_refused(llm, given, message):
    with pytest.raises(ValueError, match=message):
        llm.chat(MESSAGES, GREEDY, use_tqdm=False, **given)


def test_what_only_a_template_reads_is_passed_to_it(llm):
    assert llm.render_chat(MESSAGES, enable_thinking=False) == llm.render_chat(MESSAGES)
    assert llm.render_chat(MESSAGES, chat_template="{{ mood }}", mood="calm") == "calm"


@pytest.mark.parametrize("name", NOT_YET)
def test_a_method_of_vllm_that_is_not_here_says_what_is(llm, name):
    with pytest.raises(AttributeError, match=f"LLM.{name} does not exist here yet") as error:
        getattr(llm, name)
    assert "\n  instead " in str(error.value)


def test_what_is_said_to_be_missing_is_missing():
    """Else the table would hide a method that came later from nobody but its readers."""
    assert not [name for name in NOT_YET if hasattr(LLM, name)]
