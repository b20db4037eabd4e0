"""Which language a file is in."""

from __future__ import annotations

import pytest

from zenray.context.languages.registry import language_of


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("src/a.py", "python"),
        ("C:\\work\\Main.RS", "rust"),
        ("a/Makefile", "makefile"),
        ("Dockerfile", "dockerfile"),
        ("x.tsx", "typescriptreact"),
        ("x.unknown", ""),
        ("py", ""),
        ("", ""),
    ],
)
def test_language_of_a_path(path: str, language: str) -> None:
    assert language_of(path) == language
