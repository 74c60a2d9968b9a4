"""The plugin system: discovery, policy, probing, the catalog, selection, the lock. Imports no torch.

The order things happen in: read the policy (policy.py) -> find entry points (discovery.py) -> check
them without importing (checks.py) -> import each in a probed child, once (probing.py) -> a Catalog
(catalog.py) -> ask hooks and choose (select.py) -> write the choices down (lock.py, explain.py).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog, load_catalog
    from vllm_core.plugins.decision import Answer, Decision, Question
    from vllm_core.plugins.errors import Ambiguous, LockMismatch, NoOffer, PluginError
    from vllm_core.plugins.lock import Lock, LockedChooser
    from vllm_core.plugins.policy import Policy, read_policy
    from vllm_core.plugins.records import Offering, PluginStatus, Provided
    from vllm_core.plugins.select import Selector

_WHERE = {
    "Ambiguous": "errors", "Answer": "decision", "Catalog": "catalog", "Decision": "decision", "Lock": "lock",
    "LockMismatch": "errors", "LockedChooser": "lock", "NoOffer": "errors", "Offering": "records",
    "PluginError": "errors", "PluginStatus": "records", "Policy": "policy", "Provided": "records",
    "Question": "decision", "Selector": "select",
    "load_catalog": "catalog", "read_policy": "policy",
}  # fmt: skip
__all__ = [
    "Ambiguous",
    "Answer",
    "Catalog",
    "Decision",
    "Lock",
    "LockMismatch",
    "LockedChooser",
    "NoOffer",
    "Offering",
    "PluginError",
    "PluginStatus",
    "Policy",
    "Provided",
    "Question",
    "Selector",
    "load_catalog",
    "read_policy",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that listing plugins does not pay for selection and the lock.
    if name in _WHERE:
        return getattr(import_module(f"vllm_core.plugins.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'vllm_core.plugins' has no attribute {name!r}")
