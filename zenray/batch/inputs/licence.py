"""Which licence file speaks for a source file: the nearest one upwards."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LICENCE = re.compile(r"(?:un)?licen[cs]e|copying|copyright", re.IGNORECASE)
_NO_TEXT = (".py", ".js", ".ts", ".go", ".rs", ".java", ".c", ".h", ".html", ".json", ".png", ".svg", ".pyi", ".spdx")
_BEST_FIRST = ("license", "licence", "copying", "unlicense", "copyright")


def is_licence_file(name: str) -> bool:
    """LICENSE, LICENCE.txt, COPYING.LESSER, LICENSE-MIT; not licence.py."""
    return _LICENCE.match(name) is not None and not name.lower().endswith(_NO_TEXT)


class Licences:
    """The licence files of a tree, by folder."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._best: dict[str, str] = {}
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        """Take note of a path if it is one of a licence."""
        folder, _, name = path.rpartition("/")
        if is_licence_file(name):
            self._best[folder] = min(path, self._best.get(folder, path), key=_rank)

    def nearest(self, path: str) -> str:
        """The licence file in the folder of `path` or the nearest above; empty where there is none."""
        folder = path.rpartition("/")[0]
        while folder not in self._best:
            if not folder:
                return ""
            folder = folder.rpartition("/")[0]
        return self._best[folder]


def _rank(path: str) -> tuple[int, int, str]:
    """The plainest name: LICENSE before LICENSE-MIT before COPYING."""
    name = path.rpartition("/")[2].lower()
    kind = next((at for at, word in enumerate(_BEST_FIRST) if name.startswith(word)), len(_BEST_FIRST))
    return kind, len(name), path
