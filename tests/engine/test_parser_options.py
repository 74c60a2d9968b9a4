"""What a plugin's settings say reaches its parsers: options of the offer are keyword arguments of the target."""

from types import SimpleNamespace

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.parsers import Parsers
from vllm_core.plugin import Offer


class Tagged:
    def __init__(self, tokenizer, given, *, begin="<b>"):
        self.made_of = tokenizer, given, begin


def made(hook, **options):
    offer = Offer(name="tagged", target="tests.anything:Tagged", options=options)
    decision = SimpleNamespace(offer=offer, provided=SimpleNamespace(owner="tests 1"), load=lambda: Tagged)
    selector = SimpleNamespace(choose=lambda *args, **more: decision)
    tokenizer = SimpleNamespace(chat_template=None)
    parsers = Parsers(selector, EngineSettings(model="x"), tokenizer, ("XForCausalLM",))
    return parsers._made(hook, {"given": 1}).make().made_of, tokenizer


def test_options_of_the_offer_are_keyword_arguments_of_the_parser():
    for hook in ("tool_parser", "reasoning_parser"):
        found, tokenizer = made(hook, begin="[R]")
        assert found == (tokenizer, {"given": 1}, "[R]")


def test_a_parser_whose_offer_has_no_options_is_made_of_two_arguments():
    assert made("tool_parser")[0][2] == "<b>"
