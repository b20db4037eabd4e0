"""One sequence's copying: what to copy next, how an interrupted copy goes on, and edits worth repeating.

When a model repeats a text with changes, a copy breaks at each change, and what follows a change is often too short
to find the place again. So an interrupted copy competes with the longest match in three ways: continued where it
broke (something was inserted), one token later (that token was replaced), or behind the place nearby where the last
token stands (something was replaced, and is over). Each way is judged by how often its next token was right while
copies of this sequence were interrupted, whether or not it was the one offered.

A change after which the copy did go on is an edit: it is made again wherever its place comes up in a copy, as that
of a renamed variable does, until it is wrong once. On edits by Qwen2.5-Coder-1.5B, 32 tokens drafted, both together
raise the tokens per round from 12.7 to 17.3; fresh code and infill change by a few percent.
"""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from typing import Literal

from zenray.speculative.copying import LONGEST_MATCH, Match, continuation, end_of, longest_match
from zenray.speculative.history import SEPARATOR, TokenArray, TokenText

Way = Literal["match", "inserted", "replaced", "realigned"]

_FIRST_RATES: dict[Way, float] = {"match": 0.5, "inserted": 0.55, "replaced": 0.4, "realigned": 0.7}
_RATE_STEP = 0.15
_MIN_COPY = 4
"""Tokens that matched and were copied before a break is taken for a change."""
_MAX_CHANGE = 6
"""New tokens after which an interrupted copy is given up, and old ones in which it may realign."""
_MAX_EDIT = 4
"""Old or new tokens of an edit that is repeated."""
_MIN_CONTEXT = 4
"""A match that reaches so many tokens behind the break saw this change before: it needs no guess."""
_LOOKAHEAD = 1 + _MAX_EDIT
"""Tokens a copy is followed beyond the draft, to tell whether it goes on with the verifier's own next token."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place to copy from, in the sequence's own text or in its session's.

    A copy that was right throughout is itself a match: it may have edits in it, at which the text's own would end.
    """

    way: Way
    is_own: bool
    position: int
    next_id: int
    match: Match | None = None

    @property
    def length(self) -> int:
        """Tokens before the place known to agree."""
        return self.match.length if self.match else int(self.way == "realigned")


@dataclass(frozen=True, slots=True)
class Edit:
    """`old_ids` become `new_ids`. `anchor_id` is the first old one; without any, the token inserted behind."""

    anchor_id: int
    old_ids: tuple[int, ...]
    new_ids: tuple[int, ...]

    @property
    def key(self) -> tuple[bool, int]:
        return bool(self.old_ids), self.anchor_id


@dataclass(slots=True)
class Copy:
    """Copied tokens, the place each came from, and the edit that made it, if any."""

    candidate: Candidate
    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    edits: list[Edit | None] = field(default_factory=list)

    def add(self, token_ids: Ordered[int], position: int, edit: Edit | None = None) -> None:
        self.token_ids += token_ids
        self.positions += [position] * len(token_ids)
        self.edits += [edit] * len(token_ids)


@dataclass(frozen=True, slots=True)
class _Interruption:
    """A copy would have gone on at `position`; `num_new` other tokens came since."""

    is_own: bool
    position: int
    num_new: int


class Copier:
    """Owns what is known of one sequence: its text in reading order, and what became of its last copy."""

    def __init__(self, text: TokenText, history_N: TokenArray) -> None:
        self._text = text
        self._history_N = history_N
        self._candidates: list[Candidate] = []
        self._copy: Copy | None = None
        self._continued: Candidate | None = None
        self._interruption: _Interruption | None = None
        self._rates = dict(_FIRST_RATES)
        self._edits: dict[tuple[bool, int], Edit] = {}
        self._refuted: set[tuple[bool, int]] = set()

    @property
    def text_N(self) -> TokenArray:
        return self._text.ids_N

    def extend(self, new_ids: Ordered[int]) -> None:
        """Tokens were committed. Judges the last copy by them, whether or not it was what got verified."""
        if not new_ids:
            return
        self._text.extend(new_ids)
        self._continued = None
        if self._interruption is not None:
            for candidate in self._candidates:
                is_right = candidate.next_id == new_ids[0]
                self._rates[candidate.way] += _RATE_STEP * (is_right - self._rates[candidate.way])
        if self._copy is not None:
            self._judge(self._copy, new_ids)
        elif self._interruption is not None:
            self._interruption = _prolonged(self._interruption, len(new_ids))
        self._candidates, self._copy = [], None

    def copy(self, max_tokens: int) -> Copy | None:
        """The likeliest continuation, of about `max_tokens` tokens, a few more or less; None when nothing is alike."""
        self._candidates = self._find()
        self._copy = self._follow(self._choose(), max_tokens + _LOOKAHEAD) if self._candidates else None
        return self._copy

    def _find(self) -> list[Candidate]:
        """What goes on longest, then the ways to resume an interrupted copy."""
        found = [match] if (match := self._longest()) else []
        return found + self._resumptions(self._interruption) if self._interruption else found

    def _longest(self) -> Candidate | None:
        """The longest match, of equal ones the copy that was right so far, then the sequence's own text."""
        end_M = end_of(self.text_N)
        best = self._continued
        for is_own in (True, False):
            if best is not None and best.length == LONGEST_MATCH:
                break
            text_N = self._text_of(is_own)
            match = longest_match(text_N, end_M)
            if match and (best is None or match.length > best.length):
                best = Candidate("match", is_own, match.position, int(text_N[match.position]), match)
        return best

    def _resumptions(self, broken: _Interruption) -> list[Candidate]:
        text_N = self._text_of(broken.is_own)
        places: list[tuple[Way, int]] = [("inserted", broken.position), ("replaced", broken.position + 1)]
        last_id = int(self.text_N[-1])
        old_ids = text_N[broken.position : broken.position + _MAX_CHANGE].tolist()
        if last_id in old_ids:
            places.append(("realigned", broken.position + old_ids.index(last_id) + 1))
        return [
            Candidate(way, broken.is_own, position, int(text_N[position]))
            for way, position in places
            if position < len(text_N) and text_N[position] != SEPARATOR
        ]

    def _choose(self) -> Candidate:
        broken, first = self._interruption, self._candidates[0]
        if broken is None or first.length >= broken.num_new + _MIN_CONTEXT:
            return first
        return max(self._candidates, key=lambda candidate: self._rates[candidate.way])

    def _follow(self, candidate: Candidate, max_tokens: int) -> Copy:
        """The copy from there on, with the known edits made."""
        copy = Copy(candidate)
        source_ids = continuation(self._text_of(candidate.is_own), candidate.position, max_tokens)
        if not self._edits:
            positions = list(range(candidate.position, candidate.position + len(source_ids)))
            return Copy(candidate, source_ids, positions, [None] * len(source_ids))
        # Behind an insertion that has just been made, or a replacement, nothing is inserted.
        previous_id = -1 if candidate.way == "inserted" else int(self.text_N[-1])
        index = 0
        while index < len(source_ids) and len(copy.token_ids) < max_tokens:
            position, source_id = candidate.position + index, source_ids[index]
            insertion = self._edits.get((False, previous_id))
            if insertion and insertion.new_ids[0] != source_id:
                copy.add(insertion.new_ids, position, insertion)
            edit = self._edits.get((True, source_id))
            if edit and edit.old_ids == tuple(source_ids[index : index + len(edit.old_ids)]):
                copy.add(edit.new_ids, position, edit)
                index, previous_id = index + len(edit.old_ids), -1
            else:
                copy.add((source_id,), position)
                index, previous_id = index + 1, source_id
        del copy.token_ids[max_tokens:], copy.positions[max_tokens:], copy.edits[max_tokens:]
        return copy

    def _judge(self, copy: Copy, new_ids: Ordered[int]) -> None:
        """Finds out whether the copy was interrupted, and whether a resumed one makes an edit known."""
        num_compared = min(len(copy.token_ids), len(new_ids))
        num_right = next((i for i in range(num_compared) if copy.token_ids[i] != new_ids[i]), num_compared)
        broken = self._interruption
        if broken is not None and num_right >= 2:
            self._learn_edit(copy.candidate, broken, len(new_ids))
        if num_right == num_compared:
            self._interruption = None
            if num_right < len(copy.token_ids) and copy.edits[num_right] is None:
                position = copy.positions[num_right]
                match = Match(min(copy.candidate.length + num_right, LONGEST_MATCH), position, is_unanimous=True)
                self._continued = Candidate("match", copy.candidate.is_own, position, copy.token_ids[num_right], match)
            return
        edit = copy.edits[num_right]
        if edit is not None:
            self._edits.pop(edit.key, None)
            self._refuted.add(edit.key)
        num_new = len(new_ids) - num_right
        if copy.candidate.length + num_right >= _MIN_COPY:
            self._interruption = _Interruption(copy.candidate.is_own, copy.positions[num_right], num_new)
        elif broken is not None and num_right == 0:
            self._interruption = _prolonged(broken, num_new)
        else:
            self._interruption = None

    def _learn_edit(self, resumed: Candidate, broken: _Interruption, num_since: int) -> None:
        """The interrupted copy did go on at `resumed`, `num_since` tokens before the end of the text."""
        if resumed.way == "match":
            return
        # Where the last new token realigned, it stands behind the change.
        kept = resumed.way == "realigned"
        end = len(self._text) - num_since
        new_ids = self.text_N[end - broken.num_new : end - kept].tolist()
        old_ids = self._text_of(broken.is_own)[broken.position : resumed.position - kept].tolist()
        anchor_id = old_ids[0] if old_ids else int(self.text_N[end - broken.num_new - 1])
        edit = Edit(anchor_id, tuple(old_ids), tuple(new_ids))
        if 0 < len(new_ids) <= _MAX_EDIT and len(old_ids) <= _MAX_EDIT and edit.key not in self._refuted:
            self._edits[edit.key] = edit

    def _text_of(self, is_own: bool) -> TokenArray:
        return self.text_N if is_own else self._history_N


def _prolonged(broken: _Interruption, num_more: int) -> _Interruption | None:
    num_new = broken.num_new + num_more
    return _Interruption(broken.is_own, broken.position, num_new) if num_new <= _MAX_CHANGE else None
