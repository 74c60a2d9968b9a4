"""Names in a body that its type does not know, wherever they stand."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import msgspec

__all__ = ["known_names", "unknown_names"]


def unknown_names(value: Any, kind: type) -> Iterator[tuple[str, str, list[str]]]:
    """(path of the object, name, names that are known there), for each of ``value``'s names that ``kind`` lacks."""
    yield from _walk(value, _inspected(kind), "")


def known_names(kind: type) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


@functools.cache
def _inspected(kind: Any) -> Any:
    return msgspec.inspect.type_info(kind)


def _walk(value: Any, info: Any, path: str) -> Iterator[tuple[str, str, list[str]]]:
    if isinstance(info, msgspec.inspect.Metadata):
        yield from _walk(value, info.type, path)
    elif isinstance(info, msgspec.inspect.UnionType):
        for one in info.types:
            if _is_for(value, one):
                yield from _walk(value, one, path)
                return
    elif isinstance(info, msgspec.inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in info.fields}
        for name, item in value.items():
            if name in fields:
                yield from _walk(item, fields[name], f"{path}.{name}" if path else name)
            elif name != info.tag_field:
                yield path, name, list(fields)
    elif isinstance(info, msgspec.inspect.ListType) and isinstance(value, list) and not _is_plain(info.item_type):
        for i, item in enumerate(value):
            yield from _walk(item, info.item_type, f"{path}[{i}]")


def _is_plain(info: Any) -> bool:
    """Whether a list of such items can be long, and holds no names."""
    return isinstance(info.type if isinstance(info, msgspec.inspect.Metadata) else info, _PLAIN)


_PLAIN = (msgspec.inspect.IntType, msgspec.inspect.StrType, msgspec.inspect.FloatType, msgspec.inspect.AnyType)


def _is_for(value: Any, info: Any) -> bool:
    if isinstance(info, msgspec.inspect.Metadata):
        return _is_for(value, info.type)
    if isinstance(info, msgspec.inspect.StructType):
        return isinstance(value, dict) and (info.tag_field is None or value.get(info.tag_field) == info.tag)
    return isinstance(info, msgspec.inspect.ListType) and isinstance(value, list)
