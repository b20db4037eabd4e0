"""The values of the unit-test job as JSON objects and back, told by their types alone."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter

Value = TypeVar("Value")


def to_row(value: Any) -> dict[str, Any]:
    """`value` (a dataclass) with tuples as lists and enums by their values: what `canonical_json` takes."""
    row = _adapter(value.__class__).dump_python(value, mode="json")
    assert isinstance(row, dict)
    return row


def from_row(cls: type[Value], row: dict[str, Any]) -> Value:
    """What `to_row` was given. Raises ValueError that names each field that does not fit."""
    value: Value = _adapter(cls).validate_python(row)
    return value


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(cls: type) -> TypeAdapter[Any]:
    """Made once: building one takes a millisecond."""
    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]
