"""An empty home, plugins made on the spot, and an engine that only repeats."""

from types import SimpleNamespace

import pytest

import vllm_core
from vllm_core.cli import main
from vllm_core.engine.outputs import CompletionOutput, RequestMetrics, RequestOutput
from vllm_core.engine.sampling_params import SamplingParams


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nobody's settings but the test's; returns the working directory."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return work


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install(name, source)`` makes a distribution ``dummy-NAME`` with one plugin; returns its folder."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(name, source, **files):
        module = f"dummy_{name}_{tmp_path.name}".replace("-", "_")
        info = site / f"dummy_{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: dummy-{name}\nVersion: 1.5\n")
        info.joinpath("entry_points.txt").write_text(f"[vllm_core.plugins]\n{name} = {module}\n")
        head = "from vllm_core.plugin import *\n" + ("" if "HOOK_API" in source else "HOOK_API = 1\n")
        site.joinpath(f"{module}.py").write_text(head + source.replace("{module}", module))
        for ending, text in files.items():
            site.joinpath(f"{module}_{ending}.py").write_text(text)
        return site

    return make


@pytest.fixture
def run(capsys):
    """``run("plugins", "list")`` -> (exit code, standard output, standard error)."""

    def call(*words):
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


class Echo:
    """The part of ``LLM`` that commands use: answers a prompt with its words, last first, one a step."""

    made: list["Echo"]
    fails = ""
    timings = {"plugins": 0.25}
    built = SimpleNamespace(warnings=(), generation_config={})

    @classmethod
    def from_settings(cls, settings):
        llm = cls()
        llm.settings, llm.asked, llm.stopped = settings, [], False
        cls.made.append(llm)
        return llm

    def get_default_sampling_params(self):
        return SamplingParams(top_k=7, temperature=0.6)

    def stream(self, prompt, params):
        self.asked.append((prompt, params))
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        words = text.split()[::-1]
        if text == "too long":
            raise ValueError("the prompt has 9 tokens, and 8 fit")
        for n in range(1, len(words) + 1):
            reason = None if n < len(words) else "error" if self.fails else "stop"
            yield RequestOutput(
                request_id="0",
                prompt=text,
                prompt_token_ids=list(range(len(words))),
                outputs=[CompletionOutput(text=" ".join(words[:n]), token_ids=list(range(n)), finish_reason=reason)],
                finished=reason is not None,
                metrics=RequestMetrics(arrival_time=0.0),
                error=self.fails,
            )
            if text.startswith("interrupt"):
                raise KeyboardInterrupt

    def shutdown(self):
        self.stopped = True


@pytest.fixture
def echo(monkeypatch):
    """``vllm_core.LLM`` only repeats; ``echo.made`` lists those that were made."""
    kind = type("EchoLLM", (Echo,), {"made": [], "built": SimpleNamespace(warnings=(), generation_config={})})
    monkeypatch.setattr(vllm_core, "LLM", kind, raising=False)
    return kind
