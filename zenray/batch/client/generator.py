"""`Generator` over the verifiers' own gRPC: bounded, patient, and never satisfied with half an answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar
from uuid import uuid4

from zenray.batch.client.gate import Gate
from zenray.batch.client.limit import FIRST_LIMIT, ReplicaLoad, after_refusal, next_limit
from zenray.batch.client.remote_tokenizer import fetch_tokenizer
from zenray.batch.client.retry import pause_s
from zenray.batch.client.settings import ClientSettings
from zenray.batch.client.verifiers import OneModel
from zenray.batch.job import Generated, ModelIdentity
from zenray.engine.request import Delta, Final, FinishReason, GenerateRequest, Limits, Priority, Sampling
from zenray.engine.scoring import ScoredRows, Scoring
from zenray.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable, ZenrayError
from zenray.model.tokenizer import Tokenizer
from zenray.serving.channels import ReplicaLost
from zenray.serving.model_card import model_key
from zenray.serving.peers import Peers, Watch
from zenray.serving.routing import affinity_key
from zenray.serving.verifier_client import VerifierClient
from zenray.v1 import common_pb2, verifier_pb2_grpc

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_AFFINITY_SLACK = 4
_MAX_INTERNAL_ERRORS = 3
"""A request that failed so often with what is no error of the moment, while others got tokens, is the one to blame."""
_MAX_LOSSES = 10
"""A request whose verifiers died in so many attempts (of several runs each) is what kills them."""
_WHOLE = frozenset({FinishReason.EOS, FinishReason.STOP, FinishReason.LENGTH})


def model_identity(info: common_pb2.ModelInfo) -> ModelIdentity:
    """What of a served model decides the tokens."""
    return ModelIdentity(info.name, info.sha256, info.weight_format, info.context_length, info.vocab_size)


class VerifierGenerator:
    """The verifiers that `watch` tells of. `on_tokens` hears how many tokens have just arrived.

    Use `connected`; the object belongs to the event loop that made it.
    """

    def __init__(
        self,
        client: VerifierClient,
        model: common_pb2.ModelInfo,
        tokenizer: Tokenizer,
        settings: ClientSettings,
        on_tokens: Callable[[int], None],
    ) -> None:
        self._client = client
        self._model, self._tokenizer = model_identity(model), tokenizer
        self.model_key = model_key(model)
        self._settings, self._on_tokens = settings, on_tokens
        self._gate = Gate(FIRST_LIMIT)
        self._progress_s = time.monotonic()
        self._random = Random()
        self._name, self._numbers = f"batch-{uuid4().hex[:12]}", itertools.count()

    @property
    def model(self) -> ModelIdentity:
        return self._model

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, limits: Limits
    ) -> tuple[Generated, ...]:
        """See `zenray.batch.job.Generator`. Sampling has a seed unless it is greedy."""
        if sampling.seed is None:
            if sampling.temperature > 0:
                raise InvalidRequest.of("sampling.seed", None, "a number: a job's tokens are a function of its seed")
            sampling = replace(sampling, seed=0)
        request = GenerateRequest(
            f"{self._name}-{next(self._numbers)}", tuple(prompt_token_ids), sampling, limits, Priority.BATCH
        )
        return await self._until_whole(
            request, self._settings.attempt_timeout_s, lambda timeout_s: self._generate_once(request, timeout_s)
        )

    async def score(self, token_ids: Sequence[int], scoring: Scoring, seed: int) -> ScoredRows:
        """See `zenray.batch.job.Generator`."""
        name = f"{self._name}-{next(self._numbers)}"
        request = GenerateRequest.to_score(name, token_ids, scoring, seed, Priority.BATCH)
        timeout_s = self._settings.attempt_timeout_s + len(token_ids) * self._settings.scored_token_timeout_s
        return await self._until_whole(request, timeout_s, lambda timeout_s: self._score_once(request, timeout_s))

    async def _until_whole(
        self, request: GenerateRequest, timeout_s: float, attempt: Callable[[float], Awaitable[_Answer]]
    ) -> _Answer:
        """What `attempt` gives within its time, once it gives anything whole. Errors as `Generator` says."""
        begun_s = time.monotonic()
        num_failures = num_losses = num_internal = 0
        first_internal_s = math.inf
        while True:
            try:
                async with self._gate.places(request.sampling.n):
                    return await attempt(timeout_s)
            except InvalidRequest:
                raise
            except DeadlineExceeded as error:
                timeout_s *= 2
                failure: ZenrayError = error
            except Unavailable as error:
                num_losses += isinstance(error, ReplicaLost)
                if num_losses == _MAX_LOSSES:
                    raise Unavailable(
                        f"verifiers were lost in {num_losses} attempts of one request, which may be what ends them: "
                        f"{error}"
                    ) from error
                failure = error
            except Overloaded as error:
                self._gate.limit = after_refusal(self._gate.limit)
                failure = error
            except ZenrayError as error:
                num_internal += 1
                first_internal_s = min(first_internal_s, time.monotonic())
                if num_internal >= _MAX_INTERNAL_ERRORS and self._progress_s > first_internal_s:
                    raise
                failure = error
            num_failures += 1
            self._check_patience(begun_s, failure)
            log.info("request %s failed %d times and is sent again: %s", request.request_id, num_failures, failure)
            await asyncio.sleep(pause_s(num_failures, self._random))

    async def follow_load(self) -> None:
        """Moves the bound on requests with what the verifiers say of themselves, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.load_period_s)
            if self._gate.is_idle:
                continue
            loads = [
                ReplicaLoad(load.running_sequences, load.waiting_sequences, load.max_waiting_sequences)
                for load in (answer.engine for answer in (await self._client.loads()).values() if answer.is_available)
            ]
            self._gate.limit = next_limit(self._gate.limit, self._gate.in_flight, loads)

    async def _generate_once(self, request: GenerateRequest, timeout_s: float) -> tuple[Generated, ...]:
        token_ids: list[list[int]] = [[] for _ in range(request.sampling.n)]
        finals: dict[int, Final] = {}
        affinity = affinity_key("", request.prompt_token_ids)
        async with contextlib.aclosing(
            self._client.generate(request, affinity, time.monotonic() + timeout_s)
        ) as events:
            async for event in events:
                if isinstance(event, Delta):
                    token_ids[event.index] += event.token_ids
                    self._count(len(event.token_ids))
                elif isinstance(event, Final):
                    finals[event.index] = event
        for final in finals.values():
            if final.finish_reason is FinishReason.DEADLINE:
                raise DeadlineExceeded(f"not finished within {timeout_s:g} s")
            if final.finish_reason not in _WHOLE:
                raise Unavailable(f"a verifier ended a request early: {final.finish_reason.value}")
        return tuple(
            Generated(finals[index].text, tuple(ids), finals[index].finish_reason)
            for index, ids in enumerate(token_ids)
        )

    async def _score_once(self, request: GenerateRequest, timeout_s: float) -> ScoredRows:
        affinity = affinity_key("", request.prompt_token_ids)
        return await self._client.score(request, affinity, time.monotonic() + timeout_s, self._count)

    def _count(self, num_tokens: int) -> None:
        """Tokens generated or scored have come."""
        self._progress_s = time.monotonic()
        self._on_tokens(num_tokens)

    def _check_patience(self, begun_s: float, failure: ZenrayError) -> None:
        silent_s = time.monotonic() - max(begun_s, self._progress_s)
        if silent_s > self._settings.patience_s:
            raise Unavailable(
                f"no verifier gave a token for {self._settings.patience_s:g} s ({failure}); "
                "start the job again with the same output to go on"
            ) from failure


@contextlib.asynccontextmanager
async def connected(
    watch: Watch | OneModel, settings: ClientSettings, on_tokens: Callable[[int], None] = lambda count: None
) -> AsyncGenerator[VerifierGenerator, None]:
    """A generator over the verifiers of `watch`, once one of them has said what it serves.

    Raises Unavailable when none does within `settings.patience_s`.
    """
    peers = Peers(watch, verifier_pb2_grpc.VerifierServiceStub)
    client = VerifierClient(
        peers,
        _AFFINITY_SLACK,
        settings.failover_timeout_s,
        lambda: watch.refused if isinstance(watch, OneModel) else (),
    )
    await peers.start()
    try:
        model, tokenizer = await _served(peers, client, settings.patience_s)
        generator = VerifierGenerator(client, model, tokenizer, settings, on_tokens)
        following = asyncio.create_task(generator.follow_load())
        try:
            yield generator
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        await peers.stop()


async def _served(peers: Peers, client: VerifierClient, patience_s: float) -> tuple[common_pb2.ModelInfo, Tokenizer]:
    """What one of the replicas serves. Raises Unavailable when none says so within `patience_s`."""
    deadline_s = time.monotonic() + patience_s
    random = Random()
    for num_failures in itertools.count():
        remaining_s = deadline_s - time.monotonic()
        try:
            if not await peers.wait_for_any(max(0.0, remaining_s)):
                client.check_available()
            return await client.info(), await fetch_tokenizer(peers.available()[0].stub)
        except (Unavailable, DeadlineExceeded, IndexError) as error:  # IndexError: the last one has just left.
            if remaining_s <= 0:
                raise Unavailable(f"no verifier answered for {patience_s:g} s: {error}") from error
        await asyncio.sleep(pause_s(num_failures, random))
    raise AssertionError("unreachable")
