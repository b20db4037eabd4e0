"""Finished completions of editor sessions, kept to be typed through."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from zenray.context.suggestion.model import CompletionStarted
from zenray.context.suggestion.reuse import Gap, remains, typed_between
from zenray.engine.request import Delta, Final, GenerateEvent, Timings, Usage

MAX_CHARACTERS = 32 * 1024 * 1024
"""Of all sessions together: texts, and the documents around them."""
MAX_AGE_S = 120.0
"""What was generated longer ago knows nothing of what was written elsewhere since."""


@dataclass(eq=False, slots=True)
class Finished:
    """A completion of the document at `path`. `num_unused_tokens` were generated for nobody so far."""

    path: str
    gap: Gap
    started: CompletionStarted
    final: Final
    cut_short: bool
    num_unused_tokens: int = 0
    num_characters: int = field(init=False)
    kept_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.num_characters = len(self.gap.before) + len(self.gap.after) + len(self.final.text)

    def num_tokens_behind(self, typed: str) -> int:
        """Of the text behind `typed`, in proportion to its characters."""
        share = 1 - len(typed) / len(self.final.text)
        return round(self.final.usage.completion_tokens * share)

    def rest(self, typed: str) -> Iterator[GenerateEvent]:
        """The events of a request that gets what remains of the text; nothing is generated for it."""
        begun_s = time.monotonic()
        final, text = self.final, self.final.text[len(typed) :]
        yield self.started
        yield Delta(0, text, ())
        usage = Usage(final.usage.prompt_tokens, 0, final.usage.cached_tokens)
        timings = Timings(0.0, 0.0, (time.monotonic() - begun_s) * 1000)
        yield Final(0, text, final.finish_reason, usage, timings)


class FinishedCompletions:
    """At most `max_per_session` of each of `max_sessions`, and `max_characters` in all, least recently used forgotten.

    `on_unused` hears of tokens that are forgotten before anybody got them.
    """

    def __init__(
        self,
        max_per_session: int,
        max_sessions: int,
        on_unused: Callable[[int], None],
        max_characters: int = MAX_CHARACTERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_per_session, self._max_sessions, self._max_characters = max_per_session, max_sessions, max_characters
        self._on_unused, self._clock = on_unused, clock
        self._sessions: OrderedDict[str, list[Finished]] = OrderedDict()
        self.num_characters = 0

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def keep(self, session_id: str, finished: Finished) -> None:
        """The newest of its session, in place of one for the same gap."""
        kept = self._sessions.setdefault(session_id, [])
        self._sessions.move_to_end(session_id)
        for older in [each for each in kept if each.path == finished.path and each.gap == finished.gap]:
            self._forget(session_id, older)
        finished.kept_s = self._clock()
        kept.append(finished)
        self.num_characters += finished.num_characters
        while len(kept) > self._max_per_session:
            self._forget(session_id, kept[0])
        while len(self._sessions) > self._max_sessions:
            self.end_session(next(iter(self._sessions)))
        while self.num_characters > self._max_characters:
            oldest = next(iter(self._sessions))
            self._forget(oldest, self._sessions[oldest][0])
            if not self._sessions[oldest]:
                del self._sessions[oldest]

    def find(self, session_id: str, path: str, gap: Gap) -> tuple[Finished, str] | None:
        """The latest used completion that `gap` continues, and what was typed of it."""
        kept = self._sessions.get(session_id, [])
        oldest_s = self._clock() - MAX_AGE_S
        for finished in reversed(kept):
            may_go_on = finished.path == path and finished.kept_s >= oldest_s
            typed = typed_between(finished.gap, gap) if may_go_on else None
            if typed is not None and remains(typed, finished.final.text, cut_short=finished.cut_short):
                kept.remove(finished)
                kept.append(finished)
                self._sessions.move_to_end(session_id)
                return finished, typed
        return None

    def end_session(self, session_id: str) -> None:
        """Forgets what was kept for it."""
        for finished in list(self._sessions.get(session_id, [])):
            self._forget(session_id, finished)
        self._sessions.pop(session_id, None)

    def _forget(self, session_id: str, finished: Finished) -> None:
        self._sessions[session_id].remove(finished)
        self.num_characters -= finished.num_characters
        if finished.num_unused_tokens:
            self._on_unused(finished.num_unused_tokens)
