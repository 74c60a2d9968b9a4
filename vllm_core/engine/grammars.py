"""Compiled grammars: made off the engine's loop, in limited time, and kept while they are used or recent.

ask(spec) -> Entry     at once; the entry says when it is done, and with what
start(spec) -> Grammar     a new one in its first state, of an entry that is done and still held by somebody
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import attrs
import numpy as np

from vllm_core.engine.choose_grammars import GrammarBackendChoice, GrammarChoices
from vllm_core.engine.grammar_apart import CompilerLost, is_apart
from vllm_core.engine.grammar_backends import GrammarBackends
from vllm_core.interfaces.grammar import CompiledGrammar, Grammar, GrammarSpec, Vocabulary
from vllm_core.interfaces.reasoning_parser import ReasoningParser

__all__ = ["Entry", "Grammars"]

log = logging.getLogger(__name__)


@attrs.define(slots=True, eq=False, weakref_slot=True)
class Entry:
    """A specification and what became of it. Whoever waits for it, or runs with it, holds it."""

    spec: GrammarSpec
    compiled: CompiledGrammar | None = None
    error: str = ""

    @property
    def done(self) -> bool:
        return self.compiled is not None or bool(self.error)

    @property
    def ready(self) -> bool:
        return self.compiled is not None

    @property
    def nbytes(self) -> int:
        """As far as the backend tells."""
        return int(getattr(self.compiled, "nbytes", 0)) + 4 * len(self.spec.text)


@attrs.define(slots=True)
class Trial:
    """How far the backends have been asked for one specification."""

    at: int = 0  # the next one
    refused: list[str] = attrs.field(factory=list)
    apart: bool = False  # in a thread for those that compile in a process apart


class Grammars:
    """Of one engine. Costs nothing before ``warm`` or the first request that needs it: no thread, no import.

    backends   what compiles; ``backends.opens`` says where it gets a tokenizer
    """

    def __init__(self, choices: GrammarChoices) -> None:
        self.choices = choices
        self.backends = GrammarBackends()
        self._lock = threading.Lock()  # of the three below; never held for long: the engine's loop takes it
        self._live: weakref.WeakValueDictionary[GrammarSpec, Entry] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[GrammarSpec, Entry] = OrderedDict()
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._news = threading.Event()
        self._closed = False

    def warm(self, vocabulary: Vocabulary, reasons: bool) -> None:
        """Begin to make what the first request would wait for, beside everything else. Never waits.

        reasons   whether outputs may begin with reasoning: then the tokenizer is needed, too
        """
        self._submit(partial(self.backends.warm, self.choices, vocabulary, reasons), apart=True)
        self._submit(lambda: None, apart=False)  # so that its first thread is there, too

    def allow(self, seconds: float) -> None:
        """Compile for so long at most, whatever the settings say."""
        self.choices = attrs.evolve(self.choices, config=attrs.evolve(self.choices.config, compile_seconds=seconds))

    # ---- asked by the engine, between its steps

    def ask(self, spec: GrammarSpec) -> Entry:
        """Begin to compile, unless that was done or begun before. Never waits."""
        with self._lock:
            entry = self._live.get(spec)
            if entry is not None:
                if entry.ready:
                    self._recent[spec] = entry
                    self._recent.move_to_end(spec)
                return entry
            entry = self._live[spec] = Entry(spec)
        self._submit(partial(self._work, weakref.ref(entry), Trial()), apart=False)
        return entry

    def wait(self, seconds: float) -> None:
        """Until something was compiled, or so long."""
        if self._news.wait(seconds):
            self._news.clear()

    # ---- asked where steps run

    def start(self, spec: GrammarSpec) -> Grammar:
        """``ValueError`` if it cannot be compiled. Whoever asked before holds the entry, so this is quick."""
        with self._lock:
            entry = self._live.get(spec)
        if entry is None or not entry.done:  # another process asked
            entry = entry or Entry(spec)
            self._compile(entry, Trial())
        if entry.compiled is None:
            raise ValueError(entry.error)
        return entry.compiled.start()

    def reasoning(self, options: Mapping[str, Any]) -> Callable[[], ReasoningParser] | None:
        """What makes the parser that tells when the reasoning of a request has ended; None: the engine has none."""
        parsers = self.backends.text.parsers
        made = None if parsers is None else parsers.reasoning(options)
        return None if made is None else made.make

    def close(self) -> None:
        """End threads and processes. Safe to call twice."""
        self._closed = True
        self.backends.close()
        for threads in list(self._threads.values()):
            threads.shutdown(wait=False, cancel_futures=True)

    # ---- in threads

    def _submit(self, work: Callable[[], None], apart: bool) -> None:
        """Those who wait for a process apart keep nobody else waiting."""
        name = "vllm-core-grammar-apart" if apart else "vllm-core-grammar"
        with self._lock:
            if name not in self._threads and not self._closed:
                self._threads[name] = ThreadPoolExecutor(self.choices.config.compile_threads, name)
        with contextlib.suppress(KeyError, RuntimeError):  # closed meanwhile: nobody waits any more
            self._threads[name].submit(work)

    def _work(self, asked: weakref.ref[Entry], trial: Trial) -> None:
        entry = asked()
        if entry is None or self._closed:
            return  # whoever wanted it has gone
        later = False
        try:
            later = self._compile(entry, trial, here=False)
        except BaseException as error:
            entry.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            if not later:
                self._news.set()

    def _compile(self, entry: Entry, trial: Trial, here: bool = True) -> bool:
        """Fill the entry: ask the backends for its kind in turn. Never raises for what they do.

        here   wait for processes apart, too; else they are asked in another thread, and this one returns True
        """
        config, spec = self.choices.config, entry.spec
        backends = self.choices.backends.get(spec.kind, ())[: None if spec.fallback else 1]
        if not backends:
            entry.error = self.choices.refusals.get(spec.kind, f"nothing compiles a {spec.kind}")
            return False
        seconds = config.compile_seconds / len(backends)
        while trial.at < len(backends):
            choice = backends[trial.at]
            try:
                if not (here or trial.apart) and is_apart(choice.target):
                    trial.apart = True
                    self._submit(partial(self._work, weakref.ref(entry), trial), apart=True)
                    return True
                compiled = self._run(choice, spec, seconds)
                self._check_begins(compiled)
            except TimeoutError:
                trial.refused.append(f"{choice.label} needs more than {seconds:g} s for it (compile_seconds)")
            except Exception as error:
                said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                trial.refused.append(f"{choice.label}: {said}")
                if not isinstance(error, ValueError | CompilerLost):
                    log.warning("%s failed at a %s", choice.label, spec.kind, exc_info=error)
            else:
                entry.compiled = compiled
                self._keep(entry)
                return False
            trial.at += 1
        entry.error = f"structured_outputs: this {spec.kind} cannot be used: " + "; ".join(trial.refused)
        return False

    def _run(self, choice: GrammarBackendChoice, spec: GrammarSpec, seconds: float) -> CompiledGrammar:
        if not is_apart(choice.target):
            return self.backends.backend(choice).compile(spec)
        compiler = self.backends.compiler(choice)  # first, so that its process starts while this one imports
        backend = self.backends.backend(choice)
        return backend.restore(compiler.export(spec, seconds))

    def _check_begins(self, compiled: CompiledGrammar) -> None:
        """A schema that is its own reference, say, compiles and allows no text. Makes the first mask, too."""
        mask = np.zeros(self.backends.vocabulary.words, dtype=np.int32)
        compiled.start().fill(mask)
        if not mask.any():
            raise ValueError("it allows no text at all")

    def _keep(self, entry: Entry) -> None:
        """As one of the recent ones, at the expense of those that nobody asked for longest."""
        config = self.choices.config
        with self._lock:
            self._recent[entry.spec] = entry
            self._recent.move_to_end(entry.spec)
            total = sum(e.nbytes for e in self._recent.values())
            while len(self._recent) > config.cached_grammars or (total > config.cached_mib << 20 and self._recent):
                total -= self._recent.popitem(last=False)[1].nbytes
