from __future__ import annotations

import json
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from tests.engine.tokenizers_for_tests import CHATML, byte_fallback, byte_level
from vllm_core.engine.chat import TemplateRenderer, template_renderer
from vllm_core.engine.tokenizer import HFTokenizer, eos_ids, load_tokenizer, tokenizer_files
from vllm_core.interfaces.weights import TokenizerFiles

TEXT = "The capital of France is Paris, naïve 你好 👋"
HI = [{"role": "user", "content": "Hi"}]


class Checkpoint:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def in_memory(tokenizer, **settings):
    return TokenizerFiles(tokenizer_json=tokenizer.hf.backend_tokenizer.to_str(), settings=settings)


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_a_tokenizer_from_memory_and_one_from_a_folder_agree(make, tmp_path):
    original = make()
    original.hf.save_pretrained(tmp_path)
    memory = load_tokenizer(
        in_memory(
            original, eos_token="</s>", chat_template=CHATML, tokenizer_class="LlamaTokenizer", auto_map={"x": "y"}
        )
    )
    folder = load_tokenizer(TokenizerFiles(path=str(tmp_path)))
    for tokenizer in (memory, folder):
        ids = tokenizer.encode(TEXT)
        assert ids == original.encode(TEXT)
        assert tokenizer.decode(ids) == original.hf.decode(ids, clean_up_tokenization_spaces=False)
        assert tokenizer.eos_token_ids == (original.hf.eos_token_id,)
        assert tokenizer.vocab_size == original.vocab_size
        assert tokenizer.chat_template == CHATML


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_the_quick_way_to_a_tokenizer_comes_to_the_one_that_transformers_chooses(make, tmp_path):
    make().hf.save_pretrained(tmp_path)
    named = json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert named in ("PreTrainedTokenizerFast", "TokenizersBackend")
    ours, theirs = load_tokenizer(TokenizerFiles(path=str(tmp_path))).hf, AutoTokenizer.from_pretrained(tmp_path)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template


QUICK = """
import sys
from vllm_core.engine.tokenizer import load_tokenizer
from vllm_core.interfaces.weights import TokenizerFiles
load_tokenizer(TokenizerFiles(path=sys.argv[1]))
sys.exit("torch._dynamo" in sys.modules)
"""


def test_reading_a_tokenizer_imports_no_compiler(tmp_path):
    byte_level().hf.save_pretrained(tmp_path)
    assert subprocess.run([sys.executable, "-c", QUICK, str(tmp_path)], timeout=60).returncode == 0


def test_special_tokens_are_left_out_unless_asked_for():
    tokenizer = byte_level()
    ids = tokenizer.encode("Hi<|im_end|>")
    assert tokenizer.decode(ids) == "Hi"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "Hi<|im_end|>"


def test_a_tokenizer_without_a_rust_core_decodes_through_transformers():
    class Slow:
        eos_token_id = None

        def __len__(self):
            return 3

        def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
            assert not clean_up_tokenization_spaces
            return "-".join(map(str, ids))

    tokenizer = HFTokenizer(Slow())
    assert tokenizer.decode((1, 2)) == "1-2"
    assert tokenizer.eos_token_ids == ()


def test_where_the_tokenizer_is(tmp_path):
    own = TokenizerFiles(path="/own")
    assert tokenizer_files(None, Checkpoint(own)) is own
    assert tokenizer_files(str(tmp_path), Checkpoint(own)).path == str(tmp_path)
    with pytest.raises(ValueError, match="comes without a tokenizer"):
        tokenizer_files(None, Checkpoint(None))
    with pytest.raises(FileNotFoundError, match="neither a folder here nor a Hub id"):
        tokenizer_files("./no-such-folder", Checkpoint(own))


def test_a_folder_that_holds_no_tokenizer_is_named_with_its_files(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"cannot be read: (.|\n)*files   notes.txt\n  instead tokenizer="):
        load_tokenizer(TokenizerFiles(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": 2}, {}, (2,)),
        ({"eos_token_id": 2}, {"eos_token_id": [3, 4]}, (3, 4)),
        ({"text_config": {"eos_token_id": [5]}}, {}, (5,)),
        ({}, {}, ()),
    ],
)
def test_end_of_text_comes_from_the_generation_config_first(config, generation, expected):
    assert eos_ids(config, generation) == expected


def test_the_template_renders_with_a_generation_prompt():
    renderer = template_renderer(byte_level())
    assert renderer.render(HI) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert renderer.render(HI, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"
    assert renderer.render(HI, chat_template="{{ messages[0].content }}!") == "Hi!"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ("Hi", "at least one message"),
        (["Hi"], "message 0 must look like"),
        ([*HI, {"content": "Hi"}], "message 1 must look like"),
        ([{"role": "user", "content": 5}], "message 0: content must be text"),
        ([{"role": "alien", "content": "Hi"}], "refuses these messages: unknown role alien"),
    ],
)
def test_messages_that_cannot_be_rendered_are_refused_with_the_reason(messages, message):
    with pytest.raises(ValueError, match=message):
        template_renderer(byte_level()).render(messages)


def test_a_template_cannot_reach_out_of_its_sandbox():
    renderer = TemplateRenderer(byte_level().hf, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(ValueError, match="refuses these messages"):
        renderer.render(HI)


def test_a_model_without_a_template_says_what_to_do():
    hf = byte_level().hf
    renderer = TemplateRenderer(hf)
    renderer.chat_template = None
    with pytest.raises(ValueError, match="no chat template: pass chat_template="):
        renderer.render(HI)
    with pytest.raises(ValueError, match="should offer a chat_renderer"):
        template_renderer(object()).render(HI)


def test_importing_the_engines_text_side_imports_neither_torch_nor_transformers():
    modules = ["tokenizer", "chat", "detokenizer", "stop_strings", "sampling_params", "prompts", "core", "llm"]
    code = "".join(f"import vllm_core.engine.{m}\n" for m in modules)
    code += "import sys; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'tqdm')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
