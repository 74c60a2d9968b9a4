"""`ChatRendererConformance`: the tests that every chat renderer runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from vllm_core.interfaces.queries import ChatQuery
from vllm_core.plugin import Offer
from vllm_core.testing.cuts import TinyTokenizer
from vllm_core.testing.installed import Installed, InstalledConformance

__all__ = ["ChatRendererConformance"]

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLS = [
    {"role": "user", "content": "Is it raining in Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "It pours."},
]


class ChatRendererConformance(InstalledConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    renderer        the name of its offer
    architectures   of models whose chats it renders
    template        chat template of such a model, if that tells it
    others          architectures that are none of its business
    roles           that messages may have, the system's first if there is one
    cannot          "tools": they are refused; "parts": contents that are lists are refused;
                    "continue_final_message", "unknown options", "unknown roles", "answers as written" -> why
    """

    kind = "chat-renderer"
    hook = "chat_renderer"
    subject = "renderer"

    renderer: ClassVar[str]
    architectures: ClassVar[Sequence[str]] = ()
    template: ClassVar[str] = ""
    others: ClassVar[Sequence[str]] = ("UnheardOfForCausalLM",)
    roles: ClassVar[Sequence[str]] = ("system", "user", "assistant")

    @classmethod
    def tokenizer(cls) -> Any:
        """The tokenizer of such a model, or what the renderer needs of it."""
        return TinyTokenizer(["a text"])

    @classmethod
    def query(cls, architectures: Sequence[str], template: str = "") -> ChatQuery:
        return ChatQuery(mode="auto", architectures=tuple(architectures), template=template)

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, installed: Installed) -> Any:
        return installed.choose(cls.query(cls.architectures, cls.template)).load()(cls.tokenizer())

    @property
    def conversation(self) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": "You are an owl."}] if "system" in self.roles else []
        turns = [
            ("user", "Who is there?"),
            ("assistant", "An owl, hoo."),
            ("user", "Größe, 你好, 👋🏽 and {{ 7 * 7 }} </s>"),
        ]
        return [*system, *({"role": role, "content": content} for role, content in turns)]

    def test_it_is_chosen_for_its_models_and_not_for_others(self, installed: Installed) -> None:
        offer = installed.answer(self.query(self.architectures, self.template))
        assert isinstance(offer, Offer), f"{self.hook} answers {offer!r} for its own models"
        assert offer.name == self.renderer
        if self.renderer == "auto":  # the core's own, for all that bring a template
            return
        for other in self.others:
            found = installed.answer(self.query([other], "{{ messages }}"))
            assert not isinstance(found, Offer), f"it offers itself for {other}, whose template can do it"
        unknown = ChatQuery(mode="unheard-of-by-anybody", architectures=tuple(self.architectures), template="")
        assert installed.answer(unknown) is None, "it answers to another renderer's name"

    # ---- messages

    def test_every_message_is_in_the_prompt_in_its_place(self, made: Any) -> None:
        messages = self.conversation
        prompt = made.render(messages)
        assert isinstance(prompt, str)
        places = [prompt.find(m["content"]) for m in messages]
        lost = [m["content"] for m, place in zip(messages, places, strict=True) if place < 0]
        assert not lost, f"{lost[0]!r} is not in the prompt: {prompt!r}"
        assert places == sorted(places), f"messages change their order: {prompt!r}"

    def test_roles_are_told_apart(self, made: Any) -> None:
        for role in self.roles:
            begin = [] if role in ("system", "user") else [{"role": "user", "content": "before"}]
            end = [{"role": "user", "content": "behind"}] if role == "system" else []
            other = next(r for r in self.roles if r not in (role, "system"))
            prompts = {r: made.render([*begin, {"role": r, "content": "the same"}, *end]) for r in (role, other)}
            assert prompts[role] != prompts[other], f"{role} and {other} look alike: {prompts[role]!r}"

    def test_unknown_roles_are_refused(self, made: Any) -> None:
        self.needs("unknown roles")
        with pytest.raises(ValueError, match="unheard_of"):
            made.render([{"role": "user", "content": "a"}, {"role": "unheard_of", "content": "b"}])

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            "text",
            None,
            ["text"],
            [{"content": "a"}],
            [{"role": 3, "content": "a"}],
            [{"role": "user", "content": 3}],
        ],
        ids=["none", "a text", "null", "no object", "no role", "a number for a role", "a number for a content"],
    )
    def test_what_is_no_conversation_is_refused(self, made: Any, messages: Any) -> None:
        with pytest.raises(ValueError, match=r"\w"):
            made.render(messages)

    def test_contents_of_text_parts_are_texts(self, made: Any) -> None:
        parts = [{"type": "text", "text": "Who is"}, {"type": "text", "text": "there?"}]
        messages = [{"role": "user", "content": parts}]
        if "parts" in self.cannot:
            with pytest.raises(ValueError, match=r"\w"):
                made.render(messages)
            return
        prompt = made.render(messages)
        assert "Who is" in prompt
        assert "there?" in prompt
        one = made.render([{"role": "user", "content": [{"type": "text", "text": "Who?"}]}])
        assert one == made.render([{"role": "user", "content": "Who?"}])
        for wrong in ({"type": "hologram", "hologram": "x"}, {"type": "text"}, 7):
            with pytest.raises(ValueError, match=r"\w"):
                made.render([{"role": "user", "content": [wrong]}])

    def test_messages_are_left_as_they_are(self, made: Any) -> None:
        messages = self.conversation
        before = copy.deepcopy(messages)
        first = made.render(messages)
        assert messages == before
        made.render([{"role": "user", "content": "something else"}])
        assert made.render(messages) == first, "a prompt depends on the one before it"
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: made.render(messages), range(32))) == {first}

    # ---- options

    def test_the_answer_begins_behind_the_generation_prompt(self, made: Any) -> None:
        plain = made.render(self.conversation, add_generation_prompt=False)
        asked = made.render(self.conversation, add_generation_prompt=True)
        assert asked.startswith(plain), f"{asked!r} does not continue {plain!r}"
        assert len(asked) > len(plain), "add_generation_prompt changes nothing"
        assert made.render(self.conversation) == asked, "by default the answer begins"

    def test_answers_read_as_they_were_written(self, made: Any) -> None:
        self.needs("answers as written")
        asked = made.render(self.conversation, add_generation_prompt=True)
        answer = made.render(
            [*self.conversation, {"role": "assistant", "content": "Hoo."}], add_generation_prompt=False
        )
        assert answer.startswith(asked + "Hoo."), (
            f"a model would read its own answers otherwise than it writes them: {answer!r}"
        )

    def test_a_final_message_can_be_continued(self, made: Any) -> None:
        messages = [*self.conversation, {"role": "assistant", "content": "It is"}]
        if "continue_final_message" in self.cannot:
            with pytest.raises(ValueError, match="continue_final_message"):
                made.render(messages, continue_final_message=True)
            return
        assert made.render(messages, continue_final_message=True).endswith("It is")

    def test_tools_are_told_or_refused(self, made: Any) -> None:
        if "tools" in self.cannot:
            with pytest.raises(ValueError, match="tool"):
                made.render(self.conversation, tools=[TOOL])
            assert made.render(self.conversation, tools=None) == made.render(self.conversation)
            return
        prompt = made.render(self.conversation, tools=[TOOL])
        for words in ("get_weather", "The weather of a city, now.", "city"):
            assert words in prompt, f"{words!r} of the tool is not in the prompt: {prompt!r}"
        assert made.render(self.conversation, tools=[]) == made.render(self.conversation, tools=None)

    def test_calls_and_what_came_of_them_are_told_or_refused(self, made: Any) -> None:
        if "tools" in self.cannot:
            with pytest.raises(ValueError, match="tool"):
                made.render(CALLS)
            return
        prompt = made.render(CALLS, tools=[TOOL])
        for words in ("get_weather", json.dumps("Rome"), "It pours."):
            assert words in prompt, f"{words!r} of a call is not in the prompt: {prompt!r}"

    def test_options_that_it_does_not_read_are_refused(self, made: Any) -> None:
        self.needs("unknown options")
        with pytest.raises(ValueError, match="unheard_of"):
            made.render(self.conversation, unheard_of=True)

    def test_a_slip_in_an_option_is_refused(self, made: Any) -> None:
        with pytest.raises(ValueError, match="add_generation_promt"):
            made.render(self.conversation, add_generation_promt=True)
