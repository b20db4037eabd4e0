"""A place in code where something is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zenray.context.surroundings import Document

GapKind = Literal["humaneval line", "humaneval lines", "library line", "library lines", "cross-file"]
GAP_KINDS: tuple[GapKind, ...] = ("humaneval line", "humaneval lines", "library line", "library lines", "cross-file")


@dataclass(frozen=True, slots=True)
class Gap:
    """`missing` stood at the cursor between `before` and `after`, in the file `path`.

    `test` runs behind the whole file and raises unless the code does what it should; empty judges nothing.
    `documents` are other open files. `definition`, for cross-file gaps, is the line in them that the answer needs.
    """

    kind: GapKind
    name: str
    path: str
    before: str
    missing: str
    after: str
    test: str = ""
    documents: tuple[Document, ...] = ()
    definition: str = ""

    def filled(self, text: str) -> str:
        """The file with `text` at the cursor."""
        return self.before + text + self.after
