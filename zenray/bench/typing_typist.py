"""A typist: turns finished files and the passages to be typed in them into a typing session.

Keystroke logs of programmers come without their files, or without a licence; so the texts are real code and the
hands a seeded model, recorded once into files. Times between keys are log-normal around 150 ms, a practised typist
of Dhakal et al., "Observations on Typing from 136 Million Keystrokes" (CHI 2018), longer before shifted keys and line
ends; about one letter in fifty is mistyped, noticed up to two keys later, taken back and typed again. Pauses to think
come before most lines, and now and then before a word or a name. Return brings the next line's indentation, as in any
editor.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zenray.bench.typing_sessions import Edited, Event, Moved, Opened, TypingSession

KEY_MEDIAN_MS = 150.0
KEY_SIGMA = 0.35
MISTYPED = 0.02
PAUSE_BEFORE_LINE = 0.7
PAUSE_BEFORE_NAME = 0.18
_KEY_MS = (60.0, 480.0)
_LINE_THINK_MS = (700.0, 3000.0)
_NAME_THINK_MS = (550.0, 1200.0)
_NEIGHBOURS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_KEY = re.compile(r"\n[ \t]*|.", re.DOTALL)
_SHIFTED = set('~!@#$%^&*()_+{}|:"<>?')


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it is when the session is over."""

    path: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """Text of a file that is not there at first and gets typed; empty text only looks at that place.

    `behind` is the text it follows, found once in the finished file.
    """

    path: str
    behind: str
    text: str


def record(
    name: str, files: Sequence[SourceFile], passages: Sequence[Passage], seed: int, source: str, licence: str
) -> TypingSession:
    """Types `passages` one after the other. Raises ValueError for a passage that is not once in its file."""
    finished = {file.path: file for file in files}
    places = [_place(finished[passage.path].text, passage) for passage in passages]
    texts = {path: _without(file.text, path, passages, places) for path, file in finished.items()}
    # The file that is typed in first was opened last.
    order = sorted(files, key=lambda file: file.path == passages[0].path)
    events: list[Event] = [Opened(0, file.path, file.language, texts[file.path]) for file in order]
    hands = _Hands(random.Random(seed), dict.fromkeys(finished, 1), 1500.0)
    for number, (passage, place) in enumerate(zip(passages, places, strict=True)):
        # What is still missing before this place shifts it to the front.
        missing = sum(
            len(other.text)
            for other, start in zip(passages[number + 1 :], places[number + 1 :], strict=True)
            if other.path == passage.path and start < place
        )
        events += hands.go(passage.path, place - missing)
        events += hands.type(passage.path, place - missing, passage.text)
    return TypingSession(name, source, licence, seed, tuple(events))


def _place(text: str, passage: Passage) -> int:
    whole = passage.behind + passage.text
    if text.count(whole) != 1:
        raise ValueError(f"{whole!r} is {text.count(whole)} times in {passage.path}; want once")
    return text.index(whole) + len(passage.behind)


def _without(text: str, path: str, passages: Sequence[Passage], places: Sequence[int]) -> str:
    mine = sorted((start, len(p.text)) for p, start in zip(passages, places, strict=True) if p.path == path)
    for start, length in reversed(mine):
        text = text[:start] + text[start + length :]
    return text


class _Hands:
    """The clock, the randomness and the versions of one session."""

    def __init__(self, chance: random.Random, versions: dict[str, int], now_ms: float) -> None:
        self._chance, self._versions, self._now_ms = chance, versions, now_ms

    def go(self, path: str, offset: int) -> Iterator[Event]:
        """Looks for the place, clicks, and finds the keys again."""
        self._think(_LINE_THINK_MS)
        yield Moved(round(self._now_ms), path, offset)
        self._now_ms += self._chance.uniform(400, 900)

    def type(self, path: str, offset: int, text: str) -> Iterator[Event]:
        keys = _KEY.findall(text)
        for number, key in enumerate(keys):
            previous = keys[number - 1] if number else "\n"
            if previous[0] == "\n" and number and self._chance.random() < PAUSE_BEFORE_LINE:
                self._think(_LINE_THINK_MS)
            elif previous in " .([" and self._chance.random() < PAUSE_BEFORE_NAME:
                self._think(_NAME_THINK_MS)
            if key.islower() and key.isascii() and self._chance.random() < MISTYPED:
                yield from self._mistype(path, offset, keys[number : number + 1 + self._chance.randint(0, 2)])
            yield self._press(path, offset, 0, key)
            offset += len(key)

    def _mistype(self, path: str, offset: int, keys: list[str]) -> Iterator[Event]:
        """A neighbouring key, perhaps a few right ones behind it, and all of them taken back."""
        row = next(row for row in _NEIGHBOURS if keys[0] in row)
        at = row.index(keys[0])
        typed = [row[at + 1] if at + 1 < len(row) else row[at - 1]]
        for key in keys[1:]:
            if key[0] == "\n":
                break
            typed.append(key)
        for number, key in enumerate(typed):
            yield self._press(path, offset + number, 0, key)
        self._now_ms += self._chance.uniform(150, 400)
        for number in reversed(range(len(typed))):
            yield self._press(path, offset + number, 1, "")

    def _press(self, path: str, offset: int, remove: int, insert: str) -> Edited:
        slow = 1.3 if insert[:1] == "\n" else 1.25 if insert in _SHIFTED or insert.isupper() else 1.0
        low, high = _KEY_MS
        key_ms = slow * self._chance.lognormvariate(math.log(KEY_MEDIAN_MS), KEY_SIGMA)
        self._now_ms += min(high, max(low, key_ms))
        self._versions[path] += 1
        return Edited(round(self._now_ms), path, self._versions[path], offset, remove, insert)

    def _think(self, span_ms: tuple[float, float]) -> None:
        low, high = map(math.log, span_ms)
        self._now_ms += math.exp(self._chance.uniform(low, high))
