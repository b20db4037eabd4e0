"""Files that sessions upload, indexed off the event loop: reading one of half a million characters takes 300 ms."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from zenray.context.index import UploadedIndex
from zenray.context.pieces import Snippet

SETTLE_TIMEOUT_S = 10.0

Run = Callable[[Callable[[], None]], None]


class Uploads:
    """Of all sessions of a process, file after file on `executor`, which has one thread."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._last: Future[None] | None = None

    def new_index(self) -> BackgroundIndex:
        """The index of one session; a `zenray.context.session_symbols.NewUploads`."""
        return BackgroundIndex(self._run)

    async def settled(self) -> None:
        """Until everything uploaded so far can be found, or for `SETTLE_TIMEOUT_S`. Whoever uploads waits for it, so
        files do not pile up."""
        if self._last is not None:
            await asyncio.wait([asyncio.wrap_future(self._last)], timeout=SETTLE_TIMEOUT_S)

    def _run(self, work: Callable[[], None]) -> None:
        self._last = self._executor.submit(work)


class BackgroundIndex:
    """An `UploadedSymbols` whose changes `run` makes elsewhere, one after the other; it answers from what it has."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._index = UploadedIndex()
        self._lock = threading.Lock()

    def put(self, path: str, text: str) -> None:
        self._run(lambda: self._change(lambda: self._index.put(path, text)))

    def remove(self, path: str) -> None:
        self._run(lambda: self._change(lambda: self._index.remove(path)))

    def definitions(self, names: Sequence[str], language: str, limit: int) -> list[Snippet]:
        with self._lock:
            return self._index.definitions(names, language, limit)

    def exports(self, modules: Sequence[str], importer_path: str, language: str, limit: int) -> list[Snippet]:
        with self._lock:
            return self._index.exports(modules, importer_path, language, limit)

    def _change(self, change: Callable[[], None]) -> None:
        with self._lock:
            change()
