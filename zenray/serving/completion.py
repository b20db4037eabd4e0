"""The completion service of a context aggregator: whose turn it is, what to send a verifier, what to make of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from zenray.api.service import ModelCard, ServiceLoad, VerifierLoad
from zenray.api.totals import total_load
from zenray.config import ZenrayConfig
from zenray.context.assemble import AssembledPrompt
from zenray.context.document_events import DocumentEvent, SessionEnded
from zenray.context.request import CompletionRequest, EditorState
from zenray.context.suggestion.model import CompletionStarted
from zenray.context.suggestion.outcomes import OutcomeReport
from zenray.context.suggestion.reuse import Gap, gap_of
from zenray.context.tokens import PromptTokenizer
from zenray.engine.request import Final, GenerateEvent, GenerateRequest, Priority, Started
from zenray.errors import DeadlineExceeded, InvalidRequest, Unavailable, ZenrayError
from zenray.model.catalog import trained_order
from zenray.observe.metrics import RequestMeter, ServingMetrics
from zenray.observe.outcomes import Outcomes
from zenray.serving.admission import Admission
from zenray.serving.generation import Events
from zenray.serving.generations import Generations, Key
from zenray.serving.model_card import model_card
from zenray.serving.prompts import Prompts
from zenray.serving.routing import affinity_key
from zenray.serving.suggesting import record_of, suggest
from zenray.serving.verifier_client import VerifierClient

log = logging.getLogger(__name__)

POLL_PERIOD_S = 1.0
_SEED_BITS = 63


class ClusterCompletionService:
    """`zenray.api.service.CompletionService` over the verifier replicas of a cluster."""

    def __init__(self, config: ZenrayConfig, tokenizer: PromptTokenizer, client: VerifierClient) -> None:
        """Raises ConfigError when suggestion.outcome_log cannot be written to."""
        self._config, self._tokenizer, self._client = config, tokenizer, client
        self._card: ModelCard | None = None
        self._loads: dict[str, VerifierLoad] = {}
        self._created = int(time.time())
        self.metrics = ServingMetrics(lambda: self._loads, lambda: self._client.num_reruns)
        self._admission = Admission(config.server.max_ongoing_requests)
        self._prompts = Prompts(config.context, tokenizer, trained_order(config.model.name))
        self._generations = Generations(
            config.suggestion.max_finished, config.context.max_sessions, self.metrics.suggestions
        )
        self._outcomes = Outcomes(config.suggestion, self.metrics.suggestions)

    @property
    def tokenizer(self) -> PromptTokenizer:
        return self._tokenizer

    def model_info(self) -> ModelCard:
        if self._card is None:
            raise Unavailable("no verifier replica is ready yet")
        return self._card

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[GenerateEvent, None]:
        """See `CompletionService.complete`. Raises Overloaded beyond max_ongoing_requests."""
        arrived_s = time.monotonic()
        meter = RequestMeter(self.metrics, request.priority.name.lower())
        outcome = "CANCELLED"  # unless something else happens, the caller left
        try:
            with self._admission.admit():
                request = await self._prompts.resolve(request)
                async with aclosing(self._events(request, arrived_s)) as events:
                    async for event in events:
                        meter.see(event)
                        yield await self._suggested(request, event, meter) if isinstance(event, Final) else event
            outcome = meter.finish_reason
        except ZenrayError as error:
            outcome = error.grpc_status
            raise
        except Exception:
            outcome = "INTERNAL"
            raise
        finally:
            self._log(request, meter, outcome)

    async def assemble(self, request: CompletionRequest) -> AssembledPrompt:
        with self._admission.admit():
            deadline_s = self._deadline_s(request, time.monotonic())
            return await self._assemble(await self._prompts.resolve(request), deadline_s)

    async def apply_document_event(self, session_id: str, event: DocumentEvent) -> None:
        self._admission.check_open()
        await self._prompts.apply(session_id, event)
        if isinstance(event, SessionEnded):
            self._generations.end_session(session_id)

    async def prefetch(self, request: CompletionRequest) -> int:
        """See `CompletionService.prefetch`. What it asks for may never be typed, so the session does not learn it."""
        arrived_s = time.monotonic()
        outcome = "CANCELLED"
        try:
            with self._admission.admit():
                request = await self._prompts.resolve(replace(request, priority=Priority.BATCH), observe=False)
                key, gap = _prefetchable(request)
                deadline_s = self._deadline_s(request, arrived_s)
                num_kept = await self._generations.prefetch(key, gap, deadline_s, lambda: self._shared(request))
            outcome = "KEPT" if num_kept else "SUPERSEDED"
        except ZenrayError as error:
            outcome = error.grpc_status
            raise
        finally:
            self.metrics.suggestions.prefetched(outcome)
        return num_kept

    async def report_outcome(self, report: OutcomeReport) -> None:
        self._outcomes.report(report)

    async def load(self) -> ServiceLoad:
        loads = await self._client.loads()
        return ServiceLoad(
            load=total_load(load.engine for load in loads.values()),
            verifier_replicas=sum(load.is_available for load in loads.values()),
            experts={replica_id: load.experts for replica_id, load in loads.items() if load.experts is not None},
        )

    async def check_ready(self) -> None:
        self._admission.check_open()
        self._client.check_available()
        if self._card is None:
            raise Unavailable("no verifier replica has said yet what it serves")

    async def follow_verifiers(self) -> None:
        """Keeps the model card and the load of every replica up to date, until cancelled."""
        while True:
            if self._card is None:
                with contextlib.suppress(Unavailable):
                    self._card = model_card(await self._client.info(), self._config, self._created)
            self._loads = await self._client.loads()
            await asyncio.sleep(POLL_PERIOD_S if self._card is not None else POLL_PERIOD_S / 10)

    async def drain(self, timeout_s: float) -> None:
        """Refuses new requests, lets running ones end for at most `timeout_s` and writes out the log of outcomes."""
        await self._admission.drain(timeout_s)
        await asyncio.to_thread(self._outcomes.close, timeout_s)
        self._prompts.close()

    def _events(self, request: CompletionRequest, arrived_s: float) -> Events:
        """Of a completion of its own, or of what a request of its document may share."""
        deadline_s = self._deadline_s(request, arrived_s)
        key = _key(request) if request.priority is Priority.INTERACTIVE else None
        if key is None:
            return self._generate(request, deadline_s)
        num_choices = request.sampling.n
        return self._generations.complete(key, gap_of(request), num_choices, deadline_s, lambda: self._shared(request))

    def _shared(self, request: CompletionRequest) -> Events:
        """As long as somebody listens, who each have a deadline; this one is only the last resort."""
        return self._generate(request, time.monotonic() + self._config.bounds.max_deadline_ms / 1000)

    async def _generate(self, request: CompletionRequest, deadline_s: float) -> Events:
        prompt = await self._assemble(request, deadline_s)
        generate = self._generate_request(prompt, request)
        key = affinity_key(request.session_id, generate.prompt_token_ids)
        async with aclosing(self._client.generate(generate, key, deadline_s)) as events:
            async for event in events:
                if isinstance(event, Started):
                    yield _attributed(event, prompt)
                    continue
                if isinstance(event, Final):
                    self._prompts.learn(event)
                yield event

    async def _assemble(self, request: CompletionRequest, deadline_s: float) -> AssembledPrompt:
        """Raises DeadlineExceeded; where many prompts are being made, this one may wait for its turn."""
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                return await self._prompts.assemble(request, self.model_info().context_length)
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the prompt was assembled") from error

    async def _suggested(self, request: CompletionRequest, final: Final, meter: RequestMeter) -> Final:
        suggested = await suggest(request, final)
        if isinstance(request.input, EditorState):
            self._outcomes.remember(record_of(request, request.input, suggested, reused=meter.reused))
        if suggested.suggestion is not None:
            self.metrics.suggestions.suggested(suggested.suggestion)
        return suggested

    def _deadline_s(self, request: CompletionRequest, arrived_s: float) -> float:
        deadline_ms = request.limits.deadline_ms
        return arrived_s + (self._config.defaults.deadline_ms if deadline_ms is None else deadline_ms) / 1000

    def _generate_request(self, prompt: AssembledPrompt, request: CompletionRequest) -> GenerateRequest:
        """The verifier's request, with a seed: so it can be run again."""
        generate = prompt.generate_request(request)
        seed = generate.sampling.seed
        seeded = replace(generate.sampling, seed=secrets.randbits(_SEED_BITS) if seed is None else seed)
        return replace(generate, sampling=seeded)

    @staticmethod
    def _log(request: CompletionRequest, meter: RequestMeter, outcome: str) -> None:
        log.info(
            "request",
            extra={
                "request_id": request.request_id,
                "outcome": outcome,
                "reused": meter.reused,
                "total_ms": round(meter.end(outcome), 1),
                "first_token_ms": None if meter.first_token_ms is None else round(meter.first_token_ms, 1),
                "prompt_tokens": meter.prompt_tokens,
                "cached_tokens": meter.cached_tokens,
                "completion_tokens": meter.completion_tokens,
                "rounds": meter.rounds,
                "drafted_tokens": meter.drafted_tokens,
                "accepted_tokens": meter.accepted_tokens,
            },
        )


def _key(request: CompletionRequest) -> Key | None:
    """The document a request is about, when others of its session may be about it too."""
    if not request.session_id or not isinstance(request.input, EditorState):
        return None
    return request.session_id, request.input.path


def _prefetchable(request: CompletionRequest) -> tuple[Key, Gap]:
    """Raises InvalidRequest for a request whose completion nothing could use."""
    key = _key(request)
    if key is None:
        raise InvalidRequest.of("request", "not about a document of a session", "an editor's, with a session_id")
    gap = gap_of(request)
    if not request.suggestion.reuse:
        raise InvalidRequest.of("suggestion.reuse", False, "true: what is prefetched is there to be reused")
    if gap.terms is None:
        asked = "for exactly one text"
        raise InvalidRequest.of("sampling", asked, "no seed, one choice, no log-probabilities: such texts are shared")
    return key, gap


def _attributed(started: Started, prompt: AssembledPrompt) -> CompletionStarted:
    return CompletionStarted(started.prompt_tokens, started.cached_tokens, started.prompt_logprobs, prompt.attribution)
