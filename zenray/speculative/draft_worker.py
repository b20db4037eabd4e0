"""The drafting loop of a pool replica: many sequences of several verifiers, one draft model, one thread.

Nothing here waits for a verifier or keeps one waiting: sequences come, move on and go at any moment, and what
that means for the next forward is seen when the present one ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from zenray.speculative.acceptance import AcceptanceBook
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.drafting import Drafted, Drafting, Key, Opening, choose_work

log = logging.getLogger(__name__)

CATCH_UP_TOKENS = 256
SHORT_CATCH_UP_TOKENS = 32
"""Prompt tokens read between two forwards, alone and while others are drafted for."""
_JOIN_TIMEOUT_S = 30.0


class DraftWorker:
    """Drafts for many sequences on a thread of its own. The model is that thread's alone.

    `open`, `commit` and `close` may be called from any thread and take effect at the next forward; keys that are
    not open are ignored. `deliver` is called on the worker's thread with what a forward has found, `failed` when
    the model has failed and nothing will be found any more.
    """

    def __init__(
        self,
        model: DraftModel,
        deliver: Callable[[list[Drafted]], None],
        failed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._deliver, self._failed = deliver, failed
        self._book = AcceptanceBook()
        self._clock = clock
        self._draftings: dict[Key, Drafting] = {}
        self._lock = threading.Lock()
        self._inbox: list[tuple[Key, Opening | list[int] | None]] = []
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="zenray-draft", daemon=True)
        self.failure: BaseException | None = None

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and self.failure is None

    def open(self, key: Key, opening: Opening) -> None:
        """A new sequence; its prompt is read before anything is drafted."""
        self._put(key, opening)

    def commit(self, key: Key, token_ids: Sequence[int]) -> None:
        """Tokens the verifier has committed behind those known."""
        self._put(key, list(token_ids))

    def close(self, key: Key) -> None:
        """The sequence is finished."""
        self._put(key, None)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and with it every sequence."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_TIMEOUT_S)

    def step(self) -> list[Drafted] | None:
        """Takes in what has come, then reads a piece of a prompt and drafts one token on each of the likeliest
        branches. None when there is nothing to do until something comes."""
        self._take_inbox()
        unread = [one for one in self._draftings.values() if one.fits and one.num_unread > SHORT_CATCH_UP_TOKENS]
        chosen = choose_work(work for one in self._draftings.values() if one not in unread for work in one.work())
        if unread:
            self._read(unread[0], SHORT_CATCH_UP_TOKENS if chosen else CATCH_UP_TOKENS)
        if not chosen:
            return [] if unread else None
        begun = [(work.drafting, branch) for work in chosen if (branch := work.drafting.begin(work)) is not None]
        guesses = self._model.extend([branch.chain for _, branch in begun], num_runners_up=1)
        now_s = self._clock()
        found = []
        for (drafting, branch), guess in zip(begun, guesses, strict=True):
            drafting.extended(branch, guess)
            if guess is not None:
                found.append(drafting.drafted(branch, now_s))
        for drafting, _ in begun:
            drafting.begun_s = now_s
        return found

    def _read(self, drafting: Drafting, max_tokens: int) -> None:
        left = self._model.catch_up(drafting.branches[0].chain, max_tokens)
        if left == 0:
            drafting.begun_s = self._clock()
            # Not a token more was read although many were to be: the chain is longer than the cache.
            drafting.fits = drafting.num_unread <= SHORT_CATCH_UP_TOKENS

    def _take_inbox(self) -> None:
        with self._lock:
            inbox, self._inbox = self._inbox, []
        for key, what in inbox:
            drafting = self._draftings.get(key)
            if isinstance(what, Opening):
                assert drafting is None, "a key names one sequence"
                self._draftings[key] = Drafting(key, what, self._model, self._book, self._clock())
            elif drafting is None:
                continue
            elif what is None:
                self._draftings.pop(key).close()
            else:
                if next(drafting.work(), None) is None:
                    drafting.begun_s = self._clock()
                drafting.commit(what)

    def _put(self, key: Key, what: Opening | list[int] | None) -> None:
        with self._lock:
            self._inbox.append((key, what))
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._stopping:
                found = self.step()
                if found:
                    self._deliver(found)
                elif found is None:
                    self._wake.wait()
                    self._wake.clear()
        except BaseException as failure:
            log.exception("drafting failed")
            self.failure = failure
            self._failed()
        finally:
            for drafting in self._draftings.values():
                drafting.close()
            self._draftings.clear()
