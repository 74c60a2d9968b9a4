"""A grammar backend of a few lines for tests: texts out of a list, and whatever can go wrong."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

from vllm_core.engine.choose_grammars import GrammarBackendChoice, GrammarChoices, GrammarConfig
from vllm_core.interfaces.grammar import KINDS

FAULTS = (
    "compile raises",
    "compile refuses",
    "start raises",
    "fill raises",
    "accept raises",
    "no way on",
    "fill is slow",
)


class Toy:
    """``choice`` only. A choice that is one of FAULTS fails in that way; the others of its list are there as well."""

    apart = False

    def __init__(self, vocabulary, options):
        self.vocabulary, self.options, self.compiled = vocabulary, dict(options), []

    def compile(self, spec):
        self.compiled.append(spec.text)
        choices = json.loads(spec.text)
        if self.options.get("seconds"):
            time.sleep(self.options["seconds"])
        if "compile refuses" in choices or self.options.get("refuses"):
            raise ValueError("it refuses this")
        if "compile raises" in choices:
            raise KeyError("compile")
        fault = next((choice for choice in choices if choice in FAULTS), "")
        return Compiled([choice.encode() for choice in choices if choice not in FAULTS], fault, self.vocabulary)

    def export(self, spec):
        choices = json.loads(spec.text)
        if "hang" in choices:
            while True:
                pass
        if "crash" in choices:
            os._exit(3)
        if "all memory" in choices:
            bytearray(1 << 40)
        if "noise" in choices:
            print("noise on standard output", flush=True)
            sys.stdout.write("more")
        if "compile refuses" in choices:
            raise ValueError("it refuses this")
        return spec.text.encode()

    def restore(self, data):
        return Compiled([choice.encode() for choice in json.loads(data)], "", self.vocabulary)


class ToyApart(Toy):
    apart = True


class Second(Toy):
    """Another one, for specifications that the first refuses."""


class Picky(Toy):
    """It refuses what takes others long."""

    def compile(self, spec):
        if "hang" in spec.text:
            raise ValueError("not this")
        return super().compile(spec)


class Compiled:
    nbytes = 1 << 10

    def __init__(self, choices, fault, vocabulary):
        self.choices, self.fault, self.vocabulary = choices, fault, vocabulary

    def start(self):
        if self.fault == "start raises":
            raise KeyError("start")
        return State(self)


class State:
    def __init__(self, compiled):
        self.compiled, self.ids = compiled, []

    @property
    def finished(self):
        return bool(self.ids) and self.ids[-1] in self.compiled.vocabulary.stop_ids

    @property
    def text(self):
        return b"".join(self.compiled.vocabulary.token_bytes[i] for i in self.ids)

    def allows(self, token):
        vocabulary = self.compiled.vocabulary
        if self.finished or token >= vocabulary.size:
            return False
        if token in vocabulary.stop_ids:
            return self.text in self.compiled.choices
        piece = vocabulary.token_bytes[token]
        return bool(piece) and any(choice.startswith(self.text + piece) for choice in self.compiled.choices)

    def accept(self, ids):
        if self.compiled.fault == "accept raises":
            raise KeyError("accept")
        for i, token in enumerate(ids):
            if not self.allows(token):
                return i
            self.ids.append(token)
        return len(ids)

    def rollback(self, count):
        if count:
            del self.ids[-count:]

    def fill(self, mask):
        fault = self.compiled.fault
        if fault == "fill raises" and self.ids:
            raise KeyError("fill")
        if fault == "fill is slow" and self.ids:
            began = time.thread_time()
            while time.thread_time() - began < 0.3:
                pass
        bits = np.zeros(mask.size * 32, dtype=bool)
        if not (fault == "no way on" and self.ids):
            bits[[i for i in range(self.compiled.vocabulary.size) if self.allows(i)]] = True
        mask[:] = np.packbits(bits, bitorder="little").view(np.int32)


def choices(*backends, **config):
    """What an engine has chosen: backends by name of their class here, with options."""
    made = tuple(
        GrammarBackendChoice(name=name.lower(), target=f"tests.grammar.toy:{name}", owner="tests 1", options=options)
        for name, options in (b if isinstance(b, tuple) else (b, {}) for b in backends)
    )
    others = {kind: f"nobody here compiles a {kind}" for kind in KINDS if kind != "choice"}
    return GrammarChoices(config=GrammarConfig(**config), backends={"choice": made}, refusals=others)
