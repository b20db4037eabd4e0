"""The folder of this machine that an editor session works in."""

from __future__ import annotations

from pathlib import PurePath

from zenray.context.privacy.ignore import IgnoreRules
from zenray.context.surroundings import SymbolIndex

RULES_LIFE_S = 5.0
"""Ignore files are read again when they are used this long after: so soon does a change to them count."""


class Workspace:
    """Its name, its symbols, and which of its files stay out of prompts."""

    def __init__(self, root: str, symbols: SymbolIndex | None) -> None:
        self.root, self.symbols = root, symbols
        self.name = PurePath(root).name
        self._rules, self._read_s = IgnoreRules(root), float("-inf")

    def rules(self, now_s: float) -> IgnoreRules:
        if now_s - self._read_s > RULES_LIFE_S:
            self._rules, self._read_s = IgnoreRules(self.root), now_s
        return self._rules
