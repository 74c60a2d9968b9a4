"""The commands on a tiny real checkpoint: text, figures, defaults, and errors with their exit codes."""

import pytest

from vllm_core.cli import main


@pytest.fixture
def run(capsys):
    def call(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_complete_prints_text_and_figures(run, folder):
    code, out, err = run("complete", folder, "The capital", "--max-tokens", 5, "--temperature", 0)
    assert code == 0
    assert out.strip()
    assert err.startswith("[")
    assert "5 tokens, " in err


def test_verbose_shows_where_the_time_went_and_where_sampling_parameters_come_from(run, edited):
    path = edited("generation_config.json", temperature=0.25, top_k=7)
    code, _, err = run("complete", path, "The capital", "--max-tokens", 2, "--top-k", 3, "--verbose")
    assert code == 0
    assert " s  weights" in err
    assert "temperature=0.25 (generation_config.json)" in err
    assert "top_k=3 (flag)" in err


def test_a_chat_is_as_long_as_the_models_file_says_or_as_fits(run, folder, edited):
    path = edited("generation_config.json", max_new_tokens=3, eos_token_id=None)
    code, _, err = run("chat", path, "Hi", "--temperature", 0)
    assert code == 0
    assert " 3 tokens, " in err


def test_chat_uses_the_checkpoints_template(run, folder):
    from tests.engine.tokenizers_for_tests import byte_level

    rendered = byte_level().hf.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    code, _, err = run("chat", folder, "Hi", "--max-tokens", 3)
    assert code == 0
    assert f"[{len(rendered)} prompt tokens, " in err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--max-tokns", 5), 2, 'did you mean "--max-tokens"?'),
        (("--max-model-length", 5), 2, 'did you mean "--max-model-len"?'),
        (("--gpu-memory-utilization", 1.5), 2, "gpu_memory_utilization must be at most 1"),
        (("--kv-cache-memory-bytes", 5), 2, "instead kv_cache_memory"),
        (("--max-num-seqs", "many"), 2, "max_num_seqs must be a whole number, not 'many'"),
        (("--max-num-seqs", 0), 2, "max_num_seqs must be at least 1 requests"),
        (("--dtype", "flot32"), 2, 'did you mean "float32"?'),
        (("--hf-overrides", "{bad"), 2, "hf_overrides must be JSON"),
        (("--hf-overrides", '{"rope_theta": 5}'), 1, 'instead {"rope_parameters": ...}'),
        (("--temperature", "nan"), 2, "temperature must be at least 0, not nan"),
        (("--revision", "main"), 1, "files have no revisions"),
        (("--max-model-len", 2), 1, "the prompt has "),
        (("--kv-cache-memory", "1KiB"), 1, "Any one of these starts:"),
        (("--attention-backend", "flash"), 1, "known   cpu, "),
    ],
)
def test_a_wrong_flag_is_refused_with_what_would_work(run, folder, words, status, message):
    code, out, err = run("complete", folder, "The capital of France", *words)
    assert (code, out) == (status, ""), err
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[engine]\nmax_model_length = 5\n", 'did you mean "max_model_len"?\n  where   [engine] of ./vllm.toml'),
        ('[engine]\nmax_model_len = "5"\n', "max_model_len must be a whole number, not '5'"),
        ("[engin]\nmax_model_len = 5\n", 'did you mean "engine"?'),
        ("max_model_len = 5\n", 'settings of the engine stand in the table "engine"'),
        ("[engine\n", "./vllm.toml is not valid TOML"),
        ('[plugins]\nprefer = {attention_backnd = ["cpu"]}\n', 'did you mean "attention_backend"?'),
    ],
)
def test_a_wrong_line_in_the_file_is_refused_where_it_stands(run, folder, tmp_path, content, message):
    (tmp_path / "vllm.toml").write_text(content)
    code, out, err = run("complete", folder, "The capital", "--max-tokens", 2)
    assert (code, out) == (2, ""), err
    assert message in err
