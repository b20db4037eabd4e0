"""The completion service of a context aggregator: assemble, send to a verifier, count."""

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
from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import PromptLimits
from zenray.context.request import CompletionRequest, EditorState, Infill, TextPrompt
from zenray.context.tokens import PromptTokenizer
from zenray.engine.request import GenerateEvent, GenerateRequest
from zenray.errors import Overloaded, Unavailable, ZenrayError
from zenray.observe.metrics import RequestMeter, ServingMetrics
from zenray.serving.model_card import model_card
from zenray.serving.routing import affinity_key
from zenray.serving.verifier_client import VerifierClient

log = logging.getLogger(__name__)

POLL_PERIOD_S = 1.0
_LARGE_TEXT = 16_384
"""Characters from which tokenising (2 ms and more) leaves the event loop to the other streams."""
_SEED_BITS = 63


class ClusterCompletionService:
    """`zenray.api.service.CompletionService` over the verifier replicas of a cluster."""

    def __init__(self, config: ZenrayConfig, tokenizer: PromptTokenizer, client: VerifierClient) -> None:
        self._config, self._tokenizer, self._client = config, tokenizer, client
        self._card: ModelCard | None = None
        self._loads: dict[str, VerifierLoad] = {}
        self._ongoing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._created = int(time.time())
        self.metrics = ServingMetrics(lambda: self._loads, lambda: self._client.num_reruns)

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
        self._ongoing += 1
        self._idle.clear()
        try:
            self._admit()
            prompt = await self.assemble(request)
            generate = self._generate_request(prompt, request)
            assert generate.limits.deadline_ms is not None
            deadline_s = arrived_s + generate.limits.deadline_ms / 1000
            key = affinity_key(request.session_id, generate.prompt_token_ids)
            async with aclosing(self._client.generate(generate, key, deadline_s)) as events:
                async for event in events:
                    meter.see(event)
                    yield event
            outcome = meter.finish_reason
        except ZenrayError as error:
            outcome = error.grpc_status
            raise
        except Exception:
            outcome = "INTERNAL"
            raise
        finally:
            self._ongoing -= 1
            if not self._ongoing:
                self._idle.set()
            self._log(request, meter, outcome)

    async def assemble(self, request: CompletionRequest) -> AssembledPrompt:
        limits = PromptLimits(
            context_length=self.model_info().context_length,
            max_prompt_tokens=self._config.context.max_prompt_tokens,
            suffix_share=self._config.context.suffix_share,
        )
        if _num_characters(request) < _LARGE_TEXT:
            return assemble(request, self._tokenizer, limits)
        return await asyncio.to_thread(assemble, request, self._tokenizer, limits)

    async def load(self) -> ServiceLoad:
        loads = await self._client.loads()
        return ServiceLoad(
            load=total_load(load.engine for load in loads.values()),
            verifier_replicas=sum(load.is_available for load in loads.values()),
            experts={replica_id: load.experts for replica_id, load in loads.items() if load.experts is not None},
        )

    async def check_ready(self) -> None:
        if self._draining:
            raise Unavailable("this aggregator is draining")
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
        """Refuses new requests and lets running ones end for at most `timeout_s`."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def _admit(self) -> None:
        if self._draining:
            raise Unavailable("this aggregator is draining")
        limit = self._config.server.max_ongoing_requests
        if self._ongoing > limit:
            raise Overloaded(f"{limit} requests are being answered; server.max_ongoing_requests allows no more")

    def _generate_request(self, prompt: AssembledPrompt, request: CompletionRequest) -> GenerateRequest:
        """The verifier's request, with a seed and a deadline: so it can be run again and always ends."""
        generate = prompt.generate_request(request)
        seed, deadline_ms = generate.sampling.seed, generate.limits.deadline_ms
        return replace(
            generate,
            sampling=replace(generate.sampling, seed=secrets.randbits(_SEED_BITS) if seed is None else seed),
            limits=replace(
                generate.limits,
                deadline_ms=self._config.defaults.deadline_ms if deadline_ms is None else deadline_ms,
            ),
        )

    @staticmethod
    def _log(request: CompletionRequest, meter: RequestMeter, outcome: str) -> None:
        log.info(
            "request",
            extra={
                "request_id": request.request_id,
                "outcome": outcome,
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


def _num_characters(request: CompletionRequest) -> int:
    given = request.input
    if isinstance(given, Infill):
        return len(given.prefix) + len(given.suffix)
    return len(given.text) if isinstance(given, TextPrompt | EditorState) else 0
