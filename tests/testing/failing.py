"""Runs a kit's tests by hand on something that stands in an installed plugin's place."""

from __future__ import annotations

import inspect
from itertools import count, product

import pytest

_folders = count()


def failing(kit, given, folder, **choices):
    """Names of the kit's tests that fail, whatever they raise.

    given     argument of tests -> value; tests that want others are left out
    folder    that ``tmp_path`` lies in
    choices   parameter -> its values
    """
    failed = set()
    for name in [name for name in dir(kit) if name.startswith("test_") and getattr(kit, name)]:
        test = getattr(kit(), name)
        wanted = list(inspect.signature(test).parameters)
        if not set(wanted) <= {*given, *choices, "tmp_path"}:
            continue
        for values in product(*(choices[w] for w in wanted if w in choices)):
            chosen = dict(zip([w for w in wanted if w in choices], values, strict=True))
            arguments = {**given, **chosen, "tmp_path": folder / f"{next(_folders)}"}
            arguments["tmp_path"].mkdir()
            try:
                test(**{w: arguments[w] for w in wanted})
            except pytest.skip.Exception:
                pass
            except (Exception, pytest.fail.Exception):
                failed.add(name)
    return failed
