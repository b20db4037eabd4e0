"""The verifiers of a Ray cluster that serve a job's model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from zenray.serving.directory import Endpoint, watch
from zenray.serving.peers import Watch
from zenray.v1 import verifier_pb2

SERVICE_NAME = verifier_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name

all_verifiers: Watch = partial(watch, SERVICE_NAME)


class OneModel:
    """A watch of the replicas that serve `model`, of `watch`'s: another model would answer with other tokens, and one
    may come while a job runs. `refused` says what the others serve."""

    def __init__(self, watch: Watch, model: str) -> None:
        self._watch, self._model = watch, model
        self.refused: tuple[str, ...] = ()

    async def __call__(self) -> AsyncGenerator[list[Endpoint], None]:
        async with aclosing(self._watch()) as sets:
            async for endpoints in sets:
                others = sorted({endpoint.model for endpoint in endpoints} - {self._model})
                self.refused = tuple(f"a verifier serves {other}, the job began with {self._model}" for other in others)
                yield [endpoint for endpoint in endpoints if endpoint.model == self._model]
