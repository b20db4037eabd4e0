"""From a request to the prompt of its verifier: whose document it is, what surrounds it, what of it fits."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from zenray.config import ContextSettings
from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import LayoutOrder, PromptLimits
from zenray.context.document_events import DocumentEvent, DocumentOpened, FileUploaded, WorkspaceNamed
from zenray.context.index import open_index
from zenray.context.prompt.memory import PromptMemory
from zenray.context.request import CompletionRequest, EditorState, Infill, TextPrompt, TrackedEditor
from zenray.context.sessions import SessionStore
from zenray.context.surroundings import NOTHING_AROUND, Surroundings
from zenray.context.tokens import PromptTokenizer
from zenray.engine.request import Final
from zenray.serving.uploads import Uploads

log = logging.getLogger(__name__)

LARGE_TEXT = 16_384
"""Characters from which tokenising (2 ms and more) leaves the event loop to the other streams."""

MAX_READ_AHEAD = 32
"""Documents that wait to be read."""


class Prompts:
    """Makes every prompt of one aggregator, and keeps the editor sessions for it."""

    def __init__(self, settings: ContextSettings, tokenizer: PromptTokenizer, model_order: LayoutOrder = "psm") -> None:
        self._settings, self._tokenizer, self._model_order = settings, tokenizer, model_order
        # For what nobody waits for; prompts have threads of their own.
        self._background = ThreadPoolExecutor(1, thread_name_prefix="zenray-context")
        self._uploads = Uploads(self._background)
        self._memory = PromptMemory.of(tokenizer)
        self._sessions = SessionStore(
            settings,
            new_uploads=self._uploads.new_index,
            on_forgotten=self._memory.selections.end_session,
        )
        self._num_read_ahead = 0
        self._prefill = PrefillRate()

    async def apply(self, session_id: str, event: DocumentEvent) -> None:
        """See `SessionStore.apply`."""
        if isinstance(event, WorkspaceNamed) and event.root and self._settings.mode == "local":
            await asyncio.to_thread(open_index, event.root)  # A tree's ignore rules are files to read; done once.
        self._sessions.apply(session_id, event)
        match event:
            case FileUploaded():
                await self._uploads.settled()
                if not event.text:  # Nor is it shown on because it was shown before.
                    self._memory.selections.end_session(session_id)
            case DocumentOpened():
                self._read_ahead(session_id, event.path)

    async def resolve(self, request: CompletionRequest, *, observe: bool = True) -> CompletionRequest:
        """`request` with the text of its document. A version that is on its way is waited for, for at most
        context.version_wait_ms; raises StaleDocument for one that does not come. With `observe` the session learns a
        text that came along."""
        given = request.input
        if isinstance(given, TrackedEditor):
            return replace(request, input=await self._sessions.resolve_soon(request.session_id, given))
        if observe and isinstance(given, EditorState) and request.session_id:
            self._sessions.observe(request.session_id, given)
        return request

    async def assemble(self, request: CompletionRequest, context_length: int) -> AssembledPrompt:
        """The prompt of a resolved request."""
        around = NOTHING_AROUND
        if isinstance(request.input, EditorState):
            around = self._sessions.surroundings(request.session_id, request.input.path, request.snippets)
        limits = PromptLimits.of(self._settings, context_length, self._model_order, self._prefill.tokens_per_s)
        if _is_quick(request, around):
            return assemble(request, self._tokenizer, limits, around, self._memory)
        return await asyncio.to_thread(assemble, request, self._tokenizer, limits, around, self._memory)

    def _read_ahead(self, session_id: str, path: str) -> None:
        """The first prompt that may show parts of a document does not wait for it to be read, unless many are opened
        at once: those that wait are held in memory."""
        for document in self._sessions.surroundings(session_id, "").documents:
            if document.path == path and self._num_read_ahead < MAX_READ_AHEAD:
                self._num_read_ahead += 1
                reading = asyncio.get_running_loop().run_in_executor(
                    self._background, self._memory.read_ahead, document
                )
                reading.add_done_callback(self._has_read)

    def _has_read(self, reading: asyncio.Future[None]) -> None:
        self._num_read_ahead -= 1
        if not reading.cancelled() and (error := reading.exception()) is not None:
            log.error("reading ahead raised %s", type(error).__name__)

    def close(self) -> None:
        """Ends its thread."""
        self._background.shutdown(wait=False, cancel_futures=True)

    def learn(self, final: Final) -> None:
        """How long a prompt took tells what fits before a deadline."""
        self._prefill.observe(final)


class PrefillRate:
    """Prompt tokens per second of the verifiers as seen from here, smoothed; None until a prompt was long enough."""

    _MIN_TOKENS = 256
    _WEIGHT = 0.2

    def __init__(self) -> None:
        self.tokens_per_s: float | None = None

    def observe(self, final: Final) -> None:
        usage, timings = final.usage, final.timings
        num_tokens = usage.prompt_tokens - usage.cached_tokens
        taken_ms = timings.first_token_ms - timings.queue_ms
        if num_tokens < self._MIN_TOKENS or taken_ms <= 0:
            return
        seen = num_tokens * 1000 / taken_ms
        known = self.tokens_per_s
        self.tokens_per_s = seen if known is None else known + self._WEIGHT * (seen - known)


def text_around(request: CompletionRequest) -> tuple[str, str]:
    """The text before and after the place a request is about, as far as it came as text."""
    given = request.input
    if isinstance(given, EditorState):
        return given.before, given.after
    if isinstance(given, Infill):
        return given.prefix, given.suffix
    return (given.text if isinstance(given, TextPrompt) else ""), ""


def _is_quick(request: CompletionRequest, around: Surroundings) -> bool:
    """Nothing but a short text has to be read."""
    given = request.input
    others = (around.documents, around.edits, around.snippets, around.clipboard, around.symbols)
    if any(others):
        return False
    if isinstance(given, Infill):
        return len(given.prefix) + len(given.suffix) < LARGE_TEXT
    return not isinstance(given, TextPrompt | EditorState) or len(given.text) < LARGE_TEXT
