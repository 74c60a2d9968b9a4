"""A stranger's model: a package written outside this repository, installed by pip; found, listed, explained,
disabled and used."""

import ast
import json
import re

import pytest

from tests.test_house import PUBLIC, imports
from tests.third_party.conftest import PACKAGES
from tests.third_party.owl_oracle import CONFIG, Owl

TEXT = "The capital of France is Paris. The quick brown fox jumps over the lazy dog"
GREEDY = """
import json, sys
from vllm_core import LLM, SamplingParams
folder, text, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
llm = LLM(folder, block_size=4, max_num_batched_tokens=16)  # prompts come in chunks
params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
outputs = llm.generate([{"prompt_token_ids": p} for p in prompts] + [text], params, use_tqdm=False)
served = {d.hook: d.provided.owner for d in llm.built.decisions}
print(json.dumps({"prompts": [o.prompt_token_ids for o in outputs], "served": served["model"],
                  "tokens": [o.outputs[0].token_ids for o in outputs]}))
"""


def python_files(name):
    files = sorted((PACKAGES / name).rglob("*.py"))
    assert files
    return files


def test_the_whole_package_is_at_most_100_lines_of_python():
    assert sum(len(file.read_text().splitlines()) for file in python_files("owl")) <= 100


@pytest.mark.parametrize("package", sorted(folder.name for folder in PACKAGES.iterdir()))
def test_strangers_packages_use_the_public_modules_only(package):
    for file in python_files(package):
        assert ast.parse(file.read_text())
        assert [m for m in imports(file) if m.startswith("vllm_core") and not PUBLIC.fullmatch(m)] == []


def test_the_model_is_found_and_listed(shell):
    listed = shell("plugins", "list")
    (line,) = [line for line in listed.out.splitlines() if line.startswith("owl ")]
    assert line.split() == ["owl", "0.3.1", "vllm-plugin-owl", "active"]
    assert "model:OwlForCausalLM" in listed.out
    (row,) = [r for r in json.loads(shell("plugins", "list", "--json").out) if r["name"] == "owl"]
    assert (row["state"], row["version"], row["distribution"]) == ("active", "0.3.1", "vllm-plugin-owl")
    assert [(o["kind"], o["name"]) for o in row["provides"]] == [("model", "OwlForCausalLM")]
    shown = shell("plugins", "show", "vllm-plugin-owl")
    assert shown.code == 0
    assert "model:OwlForCausalLM" in shown.out


def test_the_choice_is_explained(shell, owl_folder):
    done = shell("explain", owl_folder, "--json")
    assert done.code == 0, done.err
    choices = json.loads(done.out)["choices"]
    (choice,) = [c for c in choices if c["hook"] == "model"]
    assert choice["chosen"]["name"] == "OwlForCausalLM"
    assert (choice["chosen"]["distribution"], choice["chosen"]["version"]) == ("vllm-plugin-owl", "0.3.1")
    assert {c["query"]["kind"] for c in choices if c["hook"] == "attention_backend"} == {"full", "sliding_window"}

    text = shell("explain", owl_folder, "--plugins-block", "parrot").out
    settings, summary, rest = text.split("\n\n", 2)
    assert settings.splitlines()[1:] == [
        f"  model          {owl_folder}  (MODEL)",
        "  plugins.block  parrot  (--plugins-block)",
    ]
    assert re.search(
        r"^model +OwlForCausalLM +vllm-plugin-owl 0\.3\.1 +its plugin lists the architecture$", summary, re.M
    )
    hooks = {line.split()[0] for line in summary.splitlines()[1:]}
    assert hooks == {c["hook"] for c in choices}
    assert {"platform", "weight_format", "rope_variant", "executor", "tokenizer", "chat_renderer"} <= hooks
    assert "asked   kind sliding_window, num_heads 4, num_kv_heads 2, k_dim 12, v_dim 12, window 9, causal," in rest
    assert rest.endswith('parrot  (vllm-plugin-parrot 0.2.0, entry point parrot = vllm_plugin_parrot) disabled by block'
                         ' in --plugins-block; remove "parrot" there\n')  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{folder}x",), r"x: does not exist; nearest: tiny-owl"),
        (("{folder}", "--attention-backend", "refrence"), r'no active plugin offers it; did you mean "reference"\?'),
        (("{folder}", "--atention-backend", "x"), r'did you mean "--attention-backend"\?'),
    ],
)
def test_wrong_input_is_one_message_with_the_nearest_name(shell, owl_folder, words, said):
    done = shell("explain", *(word.format(folder=owl_folder) for word in words))
    assert done.code in (1, 2)
    assert done.out == ""
    assert re.search(said, done.err)
    assert "Traceback" not in done.err


@pytest.mark.parametrize("what", ["owl", "vllm-plugin-owl", "model:OwlForCausalLM"])
@pytest.mark.parametrize("way", ["vllm.toml", "environment", "flag"])
def test_one_line_disables_it_and_the_list_says_which(shell, way, what):
    words, environ, source = [], {}, ""
    shell("plugins", "list")  # seen once, so that what it offers is known
    if way == "vllm.toml":
        shell.toml(f'[plugins]\nblock = ["{what}"]\n')
        source = "block in ./vllm.toml"
    elif way == "environment":
        environ, source = {"VLLM_CORE_PLUGINS_BLOCK": what}, "block in VLLM_CORE_PLUGINS_BLOCK"
    else:
        words, source = ["--plugins-block", what], "block in --plugins-block"
    done = shell("plugins", "list", "--json", *words, **environ)
    (row,) = [r for r in json.loads(done.out) if r["name"] == "owl"]
    assert row["provides"][0]["name"] == "OwlForCausalLM"
    if ":" in what:
        assert (row["state"], row["provides"][0]["disabled"]) == ("active", f"disabled by {source}")
    else:
        assert (row["state"], row["reason"]) == ("disabled", f"disabled by {source}")


@pytest.mark.parametrize("way", ["vllm.toml", "environment"])
def test_asking_for_a_disabled_model_names_what_disables_it_and_the_remedy(shell, owl_folder, way):
    shell("plugins", "list")
    if way == "vllm.toml":
        shell.toml('[plugins]\nblock = ["owl"]\n')
        done, source = shell("complete", owl_folder, "hoo"), "./vllm.toml"
    else:
        done = shell("explain", owl_folder, VLLM_CORE_PLUGINS_BLOCK="model:OwlForCausalLM")
        source = "VLLM_CORE_PLUGINS_BLOCK"
    assert (done.code, done.out) == (1, "")
    assert 'no active plugin offers the model "OwlForCausalLM"' in done.err
    assert re.search(rf"owl \(vllm-plugin-owl 0\.3\.1\) offers it, disabled by block in {re.escape(source)}", done.err)
    assert f'remove "{"owl" if way == "vllm.toml" else "model:OwlForCausalLM"}" there' in done.err
    assert "Traceback" not in done.err


def test_complete_answers_with_it(shell, owl_folder):
    done = shell("complete", owl_folder, TEXT, "--temperature", "0", "--max-tokens", "8")
    assert done.code == 0, done.err
    assert re.fullmatch(r"\[\d+ prompt tokens, 8 tokens, .*tokens/s.*\]\n", done.err)


def test_greedy_tokens_are_those_of_the_plain_transcription(shell, owl_folder):
    prompts = [[(7 * i * i + 3 * n) % CONFIG["vocab_size"] for i in range(n)] for n in (5, 23, 60)]
    got = shell.report(GREEDY, owl_folder, TEXT, json.dumps(prompts))
    assert got["served"] == "vllm-plugin-owl 0.3.1"
    oracle = Owl(owl_folder)
    for prompt, tokens in zip(got["prompts"], got["tokens"], strict=True):
        expected, margin = oracle.greedy(prompt, 24)
        assert margin > 1e-4, "this seed has a tie, which proves nothing"
        assert tokens == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"sliding_window": 8},
        {"norm_eps": 0.1},
        {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 1.0}},
        {"rope_parameters": {"rope_theta": 600.0, "partial_rotary_factor": 0.5}},
    ],
)
def test_the_transcription_notices_every_field(owl_folder, changed):
    ids = [(7 * i * i) % CONFIG["vocab_size"] for i in range(40)]
    logits, others = Owl(owl_folder)(ids), Owl(owl_folder, **changed)(ids)
    assert logits[-1].std() > 1
    assert (logits - others)[-1].abs().max() > 1e-2 * (logits.max() - logits.min())
