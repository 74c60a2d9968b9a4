"""Objects in a body whose fields depend on their ``type``: items of a response, blocks of a message, tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

import attrs
import msgspec

from vllm_plugin_server.body import to_record
from vllm_plugin_server.errors import ApiError, bad_request, shown

__all__ = ["Item", "Reader", "tool_input"]

T = TypeVar("T", bound="Item")


class Item(msgspec.Struct, kw_only=True):
    """The base of what ``Reader`` reads. ``no_effect``: fields that are granted and change nothing here."""

    no_effect: ClassVar[tuple[str, ...]] = ()

    type: str | None = None


@attrs.define
class Reader:
    """Reads the parts of one body.

    lenient   names that nobody knows are granted, too
    idle      names that were given and have no effect
    """

    lenient: bool = False
    idle: set[str] = attrs.field(factory=set)

    def read(self, kind: type[T], given: Any, path: str) -> T:
        """``given`` as a ``kind``; a mistake names its place: ``input[3].content``."""
        tree = dict(self.mapping(given, path))
        try:
            record = to_record(tree, kind, lenient=self.lenient)
        except ApiError as error:
            param = f"{path}.{error.param}" if error.param else path
            raise bad_request(f"{path}: {error.message}", param, error.code) from None
        self.idle.update(name for name in kind.no_effect if tree.get(name) is not None)
        return record

    def mapping(self, given: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(given, Mapping):
            raise bad_request(f"{path} must be an object, not {shown(given)}", path, "invalid_value")
        return given

    def choice(self, given: Any, known: Iterable[str], path: str, refused: Mapping[str, str] | None = None) -> str:
        """One of ``known``; ``refused`` are names of the API with the reason why they cannot be had."""
        near = ""
        if isinstance(given, str):
            if given in known:
                return given
            if refused and given in refused:
                raise bad_request(f"{path}: {given!r} cannot be served: {refused[given]}", path, "unsupported_value")
            found = get_close_matches(given[:80], list(known), n=1)
            near = f"; did you mean {found[0]!r}?" if found else ""
        raise bad_request(f"{path} must be one of {', '.join(known)}, not {shown(given)}{near}", path, "invalid_value")


def tool_input(arguments: str) -> dict[str, Any]:
    """Arguments as the object that clients expect; what is none is wrapped as Anthropic advises."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {"INVALID_JSON": arguments}
