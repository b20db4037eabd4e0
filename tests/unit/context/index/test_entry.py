"""What is kept of a file is of that file, bounded, and without its secrets."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.context.index.entry import FileEntry, make_entry

_MOST_CHARACTERS = 4001
STDLIB = Path(sysconfig.get_paths()["stdlib"])


def check(entry: FileEntry, text: str) -> None:
    lines = text.split("\n")
    assert len(entry.outline) <= _MOST_CHARACTERS
    for definition in entry.definitions:
        assert 0 <= definition.start_line < len(lines)
        assert definition.name
        assert definition.text.endswith("\n")
        assert len(definition.text) <= _MOST_CHARACTERS
        definition.text.encode()


@pytest.mark.parametrize("module", ["json/decoder", "asyncio/base_events", "typing", "dataclasses", "argparse", "this"])
def test_short_definitions_of_real_modules_stand_in_their_files(module: str) -> None:
    text = (STDLIB / f"{module}.py").read_text(encoding="utf-8")
    entry = make_entry(text, "python")
    check(entry, text)
    lines = text.split("\n")
    whole = [
        each for each in entry.definitions if "\n".join(lines[each.start_line :]).startswith(each.text.rstrip("\n"))
    ]
    assert len(whole) >= 0.7 * len(entry.definitions)
    assert all(each.name in each.text for each in entry.definitions)


_WORDS = [
    "class A",
    "def f",
    "function g",
    "fn h",
    "func k",
    "x",
    " = ",
    "1",
    "@",
    "export ",
    "pub ",
    "->",
    "é",
    "\ud800",
]
_MARKS = ["(", ")", "{", "}", ":", ";", "\n", "\r\n", "    ", "\t", '"', "'", "'''", "#", "//", "/*", "*/", "\0"]
_CODE = st.lists(st.sampled_from(_WORDS + _MARKS), max_size=60).map("".join)


@given(_CODE, st.sampled_from(["python", "typescript", "rust", "go", "java", "c", "cpp", "ruby", "haskell", "zig"]))
@settings(max_examples=300, deadline=None)
def test_any_text_has_an_entry(text: str, language: str) -> None:
    check(make_entry(text, language), text)


def test_secrets_are_covered_wherever_they_would_be_kept() -> None:
    token = "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0kLmNoPqRsTuVwXyZ"
    long_body = "    x = 1\n" * 100
    text = f'TOKEN = "{token}"\n\n\ndef use(key="{token}"):\n    """Takes {token}."""\n{long_body}'
    entry = make_entry(text, "python")
    assert {each.name for each in entry.definitions} == {"TOKEN", "use"}
    kept = entry.outline + "".join(each.text for each in entry.definitions)
    assert token not in kept
    assert "*" * len(token) in kept
