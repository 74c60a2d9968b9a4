"""The table of hooks that this version asks says the truth."""

import ast
from pathlib import Path

import vllm_core
from vllm_core.hookspecs import ASKED, HOOKS
from vllm_core.plugins.records import LISTINGS

CORE = Path(vllm_core.__file__).parent
# "_made" is of parsers, which are chosen for chats.
ASKING = {"choose", "choose_all", "choose_set", "Question", "ask", "entries", "find", "_made"}
# Not asked by name: the probe reads these two off every plugin.
READ_WHEN_PROBED = {"provides", "settings"}
ASKED_BY_SERVERS = {"http_endpoints"}  # which are plugins


def asked_in_the_core():
    """Hooks that stand as the first argument of a call that asks, or lists, anywhere in the core."""
    found = {}
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if name in ASKING and isinstance(first, ast.Constant) and first.value in HOOKS:
                found.setdefault(first.value, []).append(str(path.relative_to(CORE)))
    return found


def test_every_hook_marked_as_asked_is_asked_somewhere_in_the_core():
    assert sorted(set(ASKED) - READ_WHEN_PROBED - ASKED_BY_SERVERS - set(asked_in_the_core())) == []
    assert "provides" in LISTINGS
    assert '"settings"' in CORE.joinpath("plugins", "probe.py").read_text()


def test_every_hook_that_the_core_asks_is_marked_as_asked():
    assert {hook: files for hook, files in asked_in_the_core().items() if hook not in ASKED} == {}
    assert set(HOOKS) >= ASKED
