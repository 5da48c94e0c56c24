"""What fields mean, read from the code: the docstring under each field of a dataclass."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

from pipeline.schema_docs import field_docs


def field_table(record: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, type in words, meaning) of every field, those of nested dataclasses after the one that holds them."""
    meanings = field_docs(record)
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        annotation = hints[field.name]
        yield f"{prefix}{field.name}", _in_words(annotation), meanings.get(field.name, "")
        inner = _element(annotation)
        if dataclasses.is_dataclass(inner):
            mark = "[]." if inner is not annotation else "."
            yield from field_table(typing.cast(type, inner), f"{prefix}{field.name}{mark}")


def _element(annotation: Any) -> Any:
    while typing.get_origin(annotation) is tuple:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _in_words(annotation: Any) -> str:
    """As JSON knows it."""
    plain = {str: "string", int: "integer", float: "number", bool: "boolean"}
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return f"{_in_words(kinds[0])} or null"
    if typing.get_origin(annotation) is tuple:
        depth, inner = 0, annotation
        while typing.get_origin(inner) is tuple:
            depth, inner = depth + 1, typing.get_args(inner)[0]
        return f"list of {_in_words(inner)}" if depth == 1 else f"{depth}-fold list of {_in_words(inner)}"
    return plain.get(annotation, "object")
