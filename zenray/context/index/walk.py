"""The files of a tree that the index takes, as a stream; what it leaves out is counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from zenray.context.languages.registry import language, language_of
from zenray.context.privacy.ignore import DirectoryRules, IgnoreRules
from zenray.context.privacy.secret_files import is_secret_file

MAX_FILE_BYTES = 1_000_000
"""Longer files are generated or data."""

_DATA = """
bibtex csv diff git-commit go.mod go.sum html ignore ini json json5 jsonc jsonl latex markdown org po properties
requirements restructuredtext toml xml xsl yaml
"""
_WITHOUT_CODE = frozenset(_DATA.split())
"""Languages that have grammars, and nothing that other files could name."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """`path` is relative to the root, with slashes."""

    path: str
    size: int
    mtime_ns: int


def walk(root: Path, on_skip: Callable[[str], None]) -> Iterator[FoundFile]:
    """Every file worth reading, folders in the order of their names; `on_skip` is told why one is left out.

    Holds the entries of the folders on the way down, not of the tree. Symbolic links are not followed: what they lead
    to in the tree is found in its own place, and the rest is not of the tree.
    """
    folders: list[DirectoryRules] = [IgnoreRules(root).top]
    while folders:
        rules = folders.pop()
        below = []
        for entry in _entries(root / rules.path, on_skip, is_root=not rules.path):
            if entry.is_symlink():
                on_skip("symbolic link")
            elif entry.is_dir(follow_symlinks=False):
                if rules.ignores(entry.name, is_directory=True):
                    on_skip("ignored folder")
                else:
                    below.append(rules.below(entry.name))
            else:
                reason, found = _judge(entry, rules)
                if found is not None:
                    yield found
                else:
                    on_skip(reason)
        folders += reversed(below)


def count_files(root: Path) -> int:
    """How many files `walk` finds; takes a few seconds for 100,000."""
    return sum(1 for _ in walk(root, lambda reason: None))


def _entries(folder: Path, on_skip: Callable[[str], None], is_root: bool) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        if is_root:
            raise
        on_skip("unreadable folder")
        return []
    if not is_root and any(entry.name == "pyvenv.cfg" for entry in entries):  # a virtual environment by another name
        on_skip("ignored folder")
        return []
    return entries


def _judge(entry: os.DirEntry[str], rules: DirectoryRules) -> tuple[str, FoundFile | None]:
    """The file, or why it is left out; what costs least is asked first."""
    path = rules.path + entry.name
    if not _may_define_symbols(entry.name):
        return "not code", None
    if rules.ignores(entry.name, is_directory=False):
        return "ignored", None
    if is_secret_file(path):
        return "secret", None
    if not entry.is_file(follow_symlinks=False):
        return "no regular file", None
    try:
        path.encode()
        status = entry.stat(follow_symlinks=False)
    except UnicodeEncodeError:
        return "name is not UTF-8", None
    except OSError:
        return "unreadable", None
    if status.st_size > MAX_FILE_BYTES:
        return "larger than 1 MB", None
    return "", FoundFile(path, status.st_size, status.st_mtime_ns)


def defines_symbols(language_id: str) -> bool:
    """Whether files of a language are taken: there is a grammar, and it is one of code."""
    known = language(language_id)
    return known is not None and known.grammar is not None and known.id not in _WITHOUT_CODE


def _may_define_symbols(name: str) -> bool:
    """Whether a file may be code by its name; of one without extension only its first line could tell."""
    stem, dot, extension = name.rpartition(".")
    return _is_code(f"x.{extension}") or _is_code(name) or not (dot and stem)


@lru_cache(maxsize=1024)
def _is_code(name: str) -> bool:
    return defines_symbols(language_of(name))
