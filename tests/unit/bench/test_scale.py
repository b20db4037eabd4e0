"""docs/scale.md says what the code reckons today."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenray.bench.scale import tables, update
from zenray.errors import ConfigError

DOCUMENT = Path(__file__).parents[3] / "docs" / "scale.md"


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert update(text) == text


def test_every_table_has_its_place() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in tables():
        with pytest.raises(ConfigError, match=name):
            update(text.replace(f"<!-- {name}:begin -->", ""))
