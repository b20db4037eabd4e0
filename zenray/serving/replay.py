"""A stream that survives its verifier: run the request again and leave out what the client already has.

A seed fixes every token, so a second run repeats the first one exactly and continues it. Where rounding on
another replica breaks a near-tie the other way, the second run is a different text: that is noticed and
refused, never spliced.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zenray.engine.request import Delta, Final, FinishReason, GenerateEvent, Started, Timings, Usage
from zenray.errors import Unavailable


@dataclass(slots=True)
class _Choice:
    """What a choice's client has, and how far the present run has come."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finished: bool = False
    run_token_ids: list[int] = field(default_factory=list)
    run_text: str = ""


class Replay:
    """Passes the events of a request's runs on, each once."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._is_rerun = False
        self._offset_ms = 0.0
        self._first_token_ms: float | None = None
        self.started: Started | None = None

    @property
    def produced(self) -> bool:
        """The client has something besides Started."""
        return any(choice.token_ids or choice.finished for choice in self._choices.values())

    def rerun(self, offset_ms: float) -> None:
        """The next event is the first of another run, which began `offset_ms` after the request arrived."""
        self._is_rerun = True
        self._offset_ms = offset_ms
        for choice in self._choices.values():
            choice.run_token_ids, choice.run_text = [], ""

    def pass_on(self, event: GenerateEvent, now_ms: float) -> GenerateEvent | None:
        """The part of `event` that is new to the client; None when there is none. `now_ms` is since arrival.

        Raises Unavailable when this run contradicts what the client has.
        """
        if isinstance(event, Started):
            first = self.started is None
            self.started = self.started or event
            return event if first else None
        choice = self._choices.setdefault(event.index, _Choice())
        if choice.finished:
            return None
        if isinstance(event, Delta):
            if self._first_token_ms is None and event.token_ids:
                self._first_token_ms = now_ms
            return self._delta(event, choice) if self._is_rerun else self._record(event, choice)
        if self._is_rerun and not event.text.startswith(choice.text):
            if event.finish_reason is FinishReason.DEADLINE and choice.text.startswith(event.text):
                return self._cut(event.index, choice, FinishReason.DEADLINE, now_ms)  # it has not caught up
            raise _diverged()
        choice.finished = True
        return self._timed(event) if self._is_rerun else event

    def cut(self, num_choices: int, reason: FinishReason, now_ms: float) -> list[Final]:
        """Ends every open choice with what its client has."""
        choices = [(index, self._choices.setdefault(index, _Choice())) for index in range(num_choices)]
        return [self._cut(index, choice, reason, now_ms) for index, choice in choices if not choice.finished]

    def _cut(self, index: int, choice: _Choice, reason: FinishReason, now_ms: float) -> Final:
        choice.finished = True
        started = self.started or Started(0, 0)
        usage = Usage(started.prompt_tokens, len(choice.token_ids), started.cached_tokens)
        return Final(index, choice.text, reason, usage, Timings(0.0, self._first_token_ms or 0.0, now_ms))

    @staticmethod
    def _record(event: Delta, choice: _Choice) -> Delta:
        choice.token_ids += event.token_ids
        choice.text += event.text
        return event

    @staticmethod
    def _delta(event: Delta, choice: _Choice) -> Delta | None:
        """What this run has beyond what was sent, after this event."""
        choice.run_token_ids += event.token_ids
        choice.run_text += event.text
        num_sent, num_sent_text = len(choice.token_ids), len(choice.text)
        common = min(num_sent, len(choice.run_token_ids))
        common_text = min(num_sent_text, len(choice.run_text))
        if (
            choice.run_token_ids[:common] != choice.token_ids[:common]
            or choice.run_text[:common_text] != choice.text[:common_text]
        ):
            raise _diverged()
        new_ids = tuple(choice.run_token_ids[num_sent:])
        new_text = choice.run_text[num_sent_text:]
        if not new_ids and not new_text:
            return None
        choice.token_ids += new_ids
        choice.text += new_text
        return Delta(event.index, new_text, new_ids, event.logprobs[len(event.logprobs) - len(new_ids) :])

    def _timed(self, final: Final) -> Final:
        timings = final.timings
        first = self._first_token_ms if self._first_token_ms is not None else timings.first_token_ms
        moved = Timings(timings.queue_ms + self._offset_ms, first, timings.total_ms + self._offset_ms)
        return Final(final.index, final.text, final.finish_reason, final.usage, moved)


def _diverged() -> Unavailable:
    return Unavailable("the verifier died and another one continues differently; send the request again")
