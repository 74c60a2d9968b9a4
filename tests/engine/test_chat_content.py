"""Conversations reach a template in the form that it reads."""

import pytest

from tests.engine.tokenizers_for_tests import byte_level
from vllm_core.engine.chat import TemplateRenderer, template_renderer
from vllm_core.engine.chat_content import reads_parts

STRINGS = "{% for m in messages %}{{ m.role }}:{{ m.content + '!' }}{% endfor %}"
PARTS = (
    "{% for m in messages %}{{ m.role }}:{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}"
)
LISTED = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
PLAIN = [{"role": "user", "content": "a"}]


def render(template, messages, **options):
    return TemplateRenderer(byte_level().hf, template).render(messages, **options)


def test_a_template_that_reads_text_gets_parts_joined_by_line_breaks():
    assert render(STRINGS, LISTED) == "user:a\nb!"


def test_a_template_that_loops_over_contents_gets_parts_and_texts_as_they_are():
    assert render(PARTS, LISTED) == "user:<a><b>"
    assert render(PARTS, PLAIN) == "user:a"


def test_a_named_form_goes_before_what_the_template_looks_like():
    assert render(PARTS, LISTED, chat_template_content_format="string") == "user:a\nb"
    assert render(PARTS, PLAIN, chat_template_content_format="openai") == "user:<a>"
    with pytest.raises(ValueError, match="did you mean 'openai'"):
        render(PARTS, PLAIN, chat_template_content_format="opnai")


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for p in m['content'][1:] %}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for p in m.content | reverse %}{% endfor %}{% endfor %}", True),
        ("{% set content = messages[0].content %}{% for p in content %}{% break %}{% endfor %}", True),
        ("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}", False),
        ("{% for c in message.content.split('x') %}{% endfor %}", False),
        ("{% for", False),
    ],
)
def test_what_a_template_reads_is_seen_in_its_loops(template, parts):
    assert reads_parts(template) is parts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "image_url", "image_url": {}}], "parts of type 'image_url' are not supported yet"),
        ([{"type": "text"}], "a part of type 'text' needs a text"),
        ([7], "a part of a content must be"),
    ],
)
def test_a_part_that_is_no_text_is_refused_by_the_message_it_is_in(content, message):
    with pytest.raises(ValueError, match=message) as error:
        render(STRINGS, [*PLAIN, {"role": "user", "content": content}])
    assert str(error.value).startswith("message 1: ")


def test_one_of_several_templates_is_taken_by_name():
    several = {"default": "D", "tool_use": "T", "rag": "R"}
    tool = {"type": "function", "function": {"name": "f", "description": "f", "parameters": {}}}
    assert render(several, PLAIN) == "D"
    assert render(several, PLAIN, tools=[tool]) == "T"
    assert render(several, PLAIN, chat_template="rag") == "R"
    assert render(several, PLAIN, chat_template="{{ messages[0].content }}") == "a"
    with pytest.raises(ValueError, match="no chat template 'ragg'; did you mean 'rag'"):
        render(several, PLAIN, chat_template="ragg")


def test_what_a_template_reads_itself_and_how_the_prompt_ends_are_passed_on():
    template = "{{ enable_thinking }}{{ add_generation_prompt }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert render(template, PLAIN, enable_thinking=7) == "7Truea"
    assert render(template, PLAIN, add_generation_prompt=False) == "Falsea"
    assert render(template, PLAIN, continue_final_message=True) == "Falsea"
    with pytest.raises(ValueError, match="not compatible"):
        render(template, PLAIN, continue_final_message=True, add_generation_prompt=True)


def test_a_tokenizer_of_a_plugin_without_a_template_serves_prompts_and_refuses_chats():
    class Plain:
        chat_template = ""

    with pytest.raises(ValueError, match=r"the tokenizer is a Plain, .* should offer a chat_renderer"):
        template_renderer(Plain()).render([{"role": "user", "content": "a"}])

    Plain.chat_template = "{{ messages }}"  # the user's: not accepted, to be ignored
    with pytest.raises(ValueError, match="should offer a chat_renderer"):
        template_renderer(Plain())
