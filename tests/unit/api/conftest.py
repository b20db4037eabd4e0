"""A completion service in memory: the real context room and tokenizer, a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import pytest

from zenray.api.service import ModelCard, ServiceLoad
from zenray.config import ContextSettings, RequestBoundsSettings
from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import PromptLimits
from zenray.context.document_events import DocumentEvent
from zenray.context.request import CompletionRequest, TrackedEditor
from zenray.context.sessions import SessionStore
from zenray.context.suggestion.outcomes import OutcomeReport
from zenray.engine.request import (
    Delta,
    DrafterUsage,
    EngineLoad,
    Final,
    FinishReason,
    GenerateEvent,
    Started,
    Timings,
    TokenLogprob,
    Usage,
)
from zenray.model.tokenizer import ByteTokenizer

CONTEXT_LENGTH = 256


@dataclass
class FakeService:
    """Answers every prompt with `reply`, one token an event; counts what is open and records what it was asked.
    Its sessions are the real ones."""

    reply: str = "hé!\n"
    finish_reason: FinishReason = FinishReason.EOS
    error: Exception | None = None
    error_after: int = 0
    """Deltas sent before `error`; 0 raises it before the first event."""
    hold_after: int | None = None
    """Deltas sent before waiting until closed."""
    ready: Exception | None = None
    context_length: int = CONTEXT_LENGTH
    bounds: RequestBoundsSettings = field(default_factory=RequestBoundsSettings)
    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)
    sessions: SessionStore = field(default_factory=lambda: SessionStore(ContextSettings(version_wait_ms=1)))
    event_error: Exception | None = None
    applied: asyncio.Condition = field(default_factory=asyncio.Condition)
    num_applied: int = 0
    outcomes: list[OutcomeReport] = field(default_factory=list)
    requests: list[CompletionRequest] = field(default_factory=list)
    open_streams: int = 0
    most_open_streams: int = 0
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def all_closed(self) -> None:
        """Returns when no stream is open; fails after ten seconds."""
        async with asyncio.timeout(10):
            while self.open_streams:
                self.closed.clear()
                await self.closed.wait()

    def model_info(self) -> ModelCard:
        return ModelCard(
            name="tiny-coder",
            architecture="toy",
            weight_format="float32",
            num_parameters=1000,
            context_length=self.context_length,
            vocab_size=self.tokenizer.vocab_size,
            supports_infill=True,
            created=1_700_000_000,
            bounds=self.bounds,
        )

    async def apply_document_event(self, session_id: str, event: DocumentEvent) -> None:
        if self.event_error:
            raise self.event_error
        self.sessions.apply(session_id, event)
        async with self.applied:
            self.num_applied += 1
            self.applied.notify_all()

    async def all_applied(self, num_events: int) -> None:
        """Returns when so many events were applied; fails after ten seconds."""
        async with asyncio.timeout(10), self.applied:
            await self.applied.wait_for(lambda: self.num_applied >= num_events)

    async def prefetch(self, request: CompletionRequest) -> int:
        prompt = await self.assemble(request)
        self.requests.append(request)
        return len(self.tokenizer.encode(self.reply)[: prompt.max_tokens])

    async def report_outcome(self, report: OutcomeReport) -> None:
        if self.error:
            raise self.error
        self.outcomes.append(report)

    async def assemble(self, request: CompletionRequest) -> AssembledPrompt:
        if isinstance(request.input, TrackedEditor):
            editor = await self.sessions.resolve_soon(request.session_id, request.input)
            request = replace(request, input=editor)
        return assemble(request, self.tokenizer, PromptLimits(self.context_length, 64, 0.25))

    async def load(self) -> ServiceLoad:
        return ServiceLoad(EngineLoad(running_sequences=self.open_streams, total_blocks=7), 2)

    async def check_ready(self) -> None:
        if self.ready:
            raise self.ready

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[GenerateEvent, None]:
        self.requests.append(request)
        self.open_streams += 1
        self.most_open_streams = max(self.most_open_streams, self.open_streams)
        try:
            async for event in self._events(request):
                yield event
        finally:
            self.open_streams -= 1
            self.closed.set()

    async def _events(self, request: CompletionRequest) -> AsyncGenerator[GenerateEvent, None]:
        if self.error and self.error_after == 0:
            raise self.error
        prompt = await self.assemble(request)
        wants = request.sampling
        known = tuple(self._logprob(token_id, wants.logprobs) for token_id in prompt.token_ids)
        first = (TokenLogprob(prompt.token_ids[0], None), *known[1:])
        yield Started(len(prompt.token_ids), 3, first if wants.prompt_logprobs else ())
        token_ids = self.tokenizer.encode(self.reply)[: prompt.max_tokens]
        for i, token_id in enumerate(token_ids):
            sent = i + 1
            await asyncio.sleep(0)
            whole = self.tokenizer.decode(token_ids[: i + 1])
            text = whole.removesuffix("\ufffd")[len(self.tokenizer.decode(token_ids[:i]).removesuffix("\ufffd")) :]
            for index in range(wants.n):
                logprobs = () if wants.logprobs is None else (self._logprob(token_id, wants.logprobs),)
                yield Delta(index, text, (token_id,), logprobs)
            if self.error and sent == self.error_after:
                raise self.error
            if sent == self.hold_after:
                self.holding.set()
                await asyncio.Event().wait()
        text = self.tokenizer.decode(token_ids).removesuffix("\ufffd")
        for index in range(wants.n):
            drafters = (DrafterUsage("suffix", 2, 4, 1), DrafterUsage("recycling", 1, 2, 0))
            usage = Usage(len(prompt.token_ids), len(token_ids), 3, max(0, len(token_ids) - 1), drafters)
            yield Final(index, text, self.finish_reason, usage, Timings(1.0, 2.0, 3.0))

    def _logprob(self, token_id: int, num_top: int | None) -> TokenLogprob:
        """The token at -0.5, and alternatives of which the first is likelier."""
        top = tuple(((token_id + 1 + i) % 200, -0.25 - i) for i in range(num_top or 0))
        return TokenLogprob(token_id, -0.5, top)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def card(service: FakeService) -> ModelCard:
    return service.model_info()
