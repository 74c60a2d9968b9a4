"""XGrammar's compiler without what its package imports beside it: 0.1 s and 57 MiB instead of 1.2 s and 268 MiB.

The package imports torch, for masks on devices, and transformers, for the types of tokenizers. A process that compiles
needs neither. So its modules are imported one by one, past the package's own ``__init__``, and with nothing behind
these two names. The process must not use the package otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from types import ModuleType
from typing import Any

__all__ = ["Library", "load_bare"]

log = logging.getLogger(__name__)

NAME = "xgrammar"
FIRST = (f"{NAME}.load_binding", f"{NAME}.exception")  # the native library, and its errors as exceptions
OF_TRANSFORMERS = ("PreTrainedTokenizerBase", "PreTrainedTokenizerFast")  # for annotations there


class Library:
    """What is used of it."""

    def __init__(self) -> None:
        compiler: Any = importlib.import_module(f"{NAME}.compiler")
        tokenizer: Any = importlib.import_module(f"{NAME}.tokenizer_info")
        self.GrammarCompiler, self.CompiledGrammar = compiler.GrammarCompiler, compiler.CompiledGrammar
        self.TokenizerInfo, self.VocabType = tokenizer.TokenizerInfo, tokenizer.VocabType


def load_bare() -> Library:
    """In a process that has one of these already there is nothing to save: the package is imported as usual."""
    if any(name in sys.modules for name in ("torch", "transformers", NAME)):
        return Library()
    spec = importlib.util.find_spec(NAME)
    if spec is None:
        raise ModuleNotFoundError(f"there is no {NAME}; pip install vllm-plugin-xgrammar brings it", name=NAME)
    nothing: Any = ModuleType("transformers")
    for name in OF_TRANSFORMERS:
        setattr(nothing, name, type(name, (), {}))
    hidden: dict[str, Any] = {"torch": None, "transformers": nothing}
    sys.modules.update({**hidden, NAME: importlib.util.module_from_spec(spec)})
    try:
        for name in FIRST:
            importlib.import_module(name)
        return Library()
    except Exception as error:  # another version, perhaps, in which these modules need more
        log.warning("xgrammar is imported with all that it brings, because less did not do: %s", error)
        for name in [*hidden, *(name for name in sys.modules if name.partition(".")[0] == NAME)]:
            del sys.modules[name]
        return Library()
    finally:
        for name, module in hidden.items():
            if sys.modules.get(name, hidden) is module:
                del sys.modules[name]
