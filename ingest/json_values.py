"""Typed reading of untrusted JSON: each function returns what it names or refuses the file as malformed."""

import math
from typing import Any, NoReturn

from ingest.refused import Refused

Json = dict[str, Any]

_LARGEST_INTEGER = 2**53


def broken(message: str) -> NoReturn:
    """Say that the file breaks its format's rules."""
    raise Refused("malformed", message)


def as_object(value: Any, where: str) -> Json:
    """The value, if it is a JSON object."""
    if not isinstance(value, dict):
        broken(f"{where} is not a JSON object")
    return value


def as_list(value: Any, where: str) -> list[Any]:
    """The value, if it is a JSON array."""
    if not isinstance(value, list):
        broken(f"{where} is not a JSON array")
    return value


def objects(parent: Json, key: str, where: str) -> list[Json]:
    """An array of objects; empty if it is absent."""
    values = as_list(parent.get(key, []), f"`{key}` of {where}")
    return [as_object(value, f"{key}[{index}] of {where}") for index, value in enumerate(values)]


def extension(parent: Json, name: str, where: str) -> Json | None:
    """The object of an extension; None if it is absent."""
    value = as_object(parent.get("extensions", {}), f"`extensions` of {where}").get(name)
    return None if value is None else as_object(value, f"{name} of {where}")


def integer(parent: Json, key: str, where: str, *, default: int | None = None, below: int = _LARGEST_INTEGER) -> int:
    """A whole number from 0 to `below`, exclusive."""
    value = parent.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        broken(f"{where} has no whole number as `{key}`")
    if not 0 <= value < below:
        broken(
            f"{where} has {str(value)[:40]} as `{key}`; "
            + (f"0 to {below - 1} are there" if below else "none is there")
        )
    return value


def integers(parent: Json, key: str, where: str, *, below: int) -> list[int]:
    """An array of whole numbers from 0 to `below`, exclusive; empty if it is absent."""
    values = as_list(parent.get(key, []), f"`{key}` of {where}")
    return [integer({key: value}, key, where, below=below) for value in values]


def string(parent: Json, key: str, where: str) -> str:
    """A string that can be stored as UTF-8; empty if it is absent."""
    value = parent.get(key, "")
    if not isinstance(value, str):
        broken(f"{where} has no string as `{key}`")
    # JSON may hold half of a surrogate pair, which no encoder accepts.
    return value.encode("utf-8", "replace").decode("utf-8")


def strings(parent: Json, key: str, where: str) -> tuple[str, ...]:
    """An array of strings; empty if it is absent."""
    values = as_list(parent.get(key, []), f"`{key}` of {where}")
    return tuple(string({key: value}, key, where) for value in values)


def numbers(parent: Json, key: str, where: str, count: int | None = None) -> list[float]:
    """An array of finite numbers, so many if `count` is given; empty if it is absent.

    Raises:
        Refused: `malformed`, or `non_finite` for numbers past what a double holds.
    """
    if key not in parent:
        return []
    values = as_list(parent[key], f"`{key}` of {where}")
    if count is not None and len(values) != count:
        broken(f"{where} has {len(values)} numbers as `{key}`, not {count}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            broken(f"{where} has something other than a number in `{key}`")
        if abs(value) > 1e300 or not math.isfinite(value):
            raise Refused("non_finite", f"{where} has an infinite number in `{key}`")
    return [float(value) for value in values]
