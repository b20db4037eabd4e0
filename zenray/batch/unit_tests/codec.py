"""The values of the unit-test job as JSON objects and back, told by their types alone."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

Value = TypeVar("Value")


def to_row(value: Any) -> dict[str, Any]:
    """`value` (a dataclass) with tuples as lists and enums by their values: what `canonical_json` takes."""
    row = _adapter(type(value)).dump_python(value, mode="json")
    assert isinstance(row, dict)
    return row


def from_row(cls: type[Value], row: dict[str, Any]) -> Value:
    """What `to_row` was given. Raises ValueError that names each field that does not fit."""
    hashable: Any = cls  # mypy does not see that a class is.
    value: Value = _adapter(hashable).validate_python(row)
    return value


@cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)
