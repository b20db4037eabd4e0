"""Who generates for which document: at most one completion at a time for a session and a path.

A newer request of the same document ends the older one, or joins it, or takes the rest of a finished one; what
continues what is `zenray.context.suggestion.reuse`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from zenray.context.suggestion.model import CompletionStarted
from zenray.context.suggestion.reuse import Gap, agrees, is_cut_short, typed_between
from zenray.engine.request import Final, FinishReason, Timings, Usage
from zenray.serving.finished import Finished, FinishedCompletions
from zenray.serving.generation import Diverged, Events, Generation, reused

Key = tuple[str, str]
"""A session and the path of one of its documents."""


class ReuseMetrics(Protocol):
    """Where is counted what reuse saves and what superseding wastes. Tokens of a part of a text are in proportion to
    its characters."""

    def wasted(self, num_tokens: int, reason: str) -> None:
        """Generated for nobody: superseded, cancelled, failed, or unused by the time they were forgotten."""
        ...

    def superseded(self) -> None:
        """A completion was ended by a newer request."""
        ...

    def joined(self, num_tokens: int) -> None:
        """A request got `num_tokens` of a completion that was running already."""
        ...

    def reused(self, num_tokens: int) -> None:
        """A request got `num_tokens` of a completion that had ended."""
        ...


@dataclass(eq=False, slots=True)
class _Document:
    """While somebody asks for it. Requests are counted, so that one that has to start over knows of newer ones."""

    running: Generation | None = None
    is_prefetch: bool = False
    newest: int = 0
    num_requests: int = 0


class Generations:
    """All of one process. `max_finished` completions of a session are kept to be typed through."""

    def __init__(self, max_finished: int, max_sessions: int, metrics: ReuseMetrics) -> None:
        self._metrics = metrics
        self._documents: dict[Key, _Document] = {}
        self._finished = FinishedCompletions(
            max_finished, max_sessions, lambda num_tokens: metrics.wasted(num_tokens, "unused")
        )

    @property
    def num_documents(self) -> int:
        """Somebody is being answered for."""
        return len(self._documents)

    @property
    def num_running(self) -> int:
        return sum(document.running is not None for document in self._documents.values())

    def end_session(self, session_id: str) -> None:
        """Ends what runs for it and forgets what is finished."""
        for (of_session, _), document in self._documents.items():
            if of_session == session_id and document.running is not None:
                document.running.end(FinishReason.CANCELLED)
        self._finished.end_session(session_id)

    async def complete(
        self, key: Key, gap: Gap, num_choices: int, deadline_s: float, generate: Callable[[], Events]
    ) -> Events:
        """The events of a request for `gap`, until `deadline_s` of the monotonic clock: of a completion that it
        continues, else of a new one, which `generate` begins. Raises what that raises, and DeadlineExceeded."""
        document = self._documents.setdefault(key, _Document())
        document.num_requests += 1
        document.newest = number = document.newest + 1
        try:
            while document.newest == number:
                found = self._finished.find(*key, gap)
                if found is not None:
                    finished, typed = found
                    finished.num_unused_tokens = 0
                    self._supersede(document)
                    self._metrics.reused(finished.num_tokens_behind(typed))
                    for event in finished.rest(typed):
                        yield event
                    return
                generation, typed_of_it = document.running, self._typed_of_running(document, gap)
                if generation is None or typed_of_it is None:
                    generation = self._begin(key, document, gap, num_choices, generate)
                document.is_prefetch = False
                try:
                    async with aclosing(generation.listen(typed_of_it, deadline_s)) as events:
                        async for event in events:
                            if typed_of_it is not None and isinstance(event, Final):
                                self._count_join(generation, event)
                            yield event
                    return
                except Diverged:
                    continue
            # A newer request came while this one was waiting for a text that then was another one.
            yield CompletionStarted(0, 0)
            yield Final(0, "", FinishReason.SUPERSEDED, Usage(0, 0, 0), Timings(0, 0, 0))
        finally:
            document.num_requests -= 1
            if not document.num_requests:
                del self._documents[key]

    async def prefetch(self, key: Key, gap: Gap, deadline_s: float, generate: Callable[[], Events]) -> int:
        """Generates for a request to come. Returns the tokens kept for it: none when a request is being answered for
        the document, or comes meanwhile. Raises what `generate` raises, and DeadlineExceeded."""
        document = self._documents.setdefault(key, _Document())
        document.num_requests += 1
        try:
            if document.running is not None and not document.is_prefetch:
                return 0
            if (found := self._finished.find(*key, gap)) is not None:
                return found[0].num_tokens_behind(found[1])
            generation = self._begin(key, document, gap, 1, generate, is_prefetch=True)
            async with aclosing(generation.listen(None, deadline_s)) as events:
                async for event in events:
                    if isinstance(event, Final) and event.finish_reason is FinishReason.SUPERSEDED:
                        return 0
            return generation.num_tokens
        finally:
            document.num_requests -= 1
            if not document.num_requests:
                del self._documents[key]

    def _typed_of_running(self, document: _Document, gap: Gap) -> str | None:
        """What of the running completion was typed since; None when the request cannot join it.

        A prefetch has batch priority, so it is joined only where its text is there to be shown.
        """
        running = document.running
        typed = None if running is None else typed_between(running.gap, gap)
        if running is None or typed is None or not agrees(typed, running.text):
            return None
        if document.is_prefetch and len(running.text) <= len(typed):
            return None
        return typed

    def _begin(
        self,
        key: Key,
        document: _Document,
        gap: Gap,
        num_choices: int,
        generate: Callable[[], Events],
        *,
        is_prefetch: bool = False,
    ) -> Generation:
        self._supersede(document)
        document.is_prefetch = is_prefetch

        def on_end(generation: Generation) -> None:
            if document.running is generation:
                document.running = None
            self._keep_or_count(key, generation, unused=document.is_prefetch)

        document.running = Generation(gap, num_choices, generate(), on_end)
        return document.running

    @staticmethod
    def _supersede(document: _Document) -> None:
        if document.running is not None:
            document.running.end(FinishReason.SUPERSEDED)

    def _keep_or_count(self, key: Key, generation: Generation, *, unused: bool) -> None:
        """What has ended by itself, or at the deadline of its last listener, is kept; the rest was for nothing."""
        final, terms = generation.outcome(), generation.gap.terms
        if final is None:
            if generation.reason is FinishReason.SUPERSEDED:
                self._metrics.superseded()
            reason = "failed" if generation.reason is None else generation.reason.value.lower()
            self._metrics.wasted(generation.num_tokens, reason)
        elif terms is not None and final.text and generation.started is not None:
            session_id, path = key
            cut_short = is_cut_short(final.finish_reason, final.usage.completion_tokens, terms.limits)
            num_unused = generation.num_tokens if unused else 0
            kept = Finished(path, generation.gap, reused(generation.started), final, cut_short, num_unused)
            self._finished.keep(session_id, kept)

    def _count_join(self, generation: Generation, final: Final) -> None:
        if final.finish_reason is not FinishReason.SUPERSEDED:
            self._metrics.joined(round(generation.num_tokens * len(final.text) / max(1, len(generation.text))))
