"""The engine in this process, without gRPC or Ray: what the hardware and the engine alone can do."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

from zenray.bench.prompts import Prompt
from zenray.bench.targets import Call, Chunk, Ended
from zenray.context.assemble import assemble
from zenray.context.budget import PromptLimits
from zenray.context.request import CompletionRequest, Infill, TextPrompt
from zenray.engine.async_engine import AsyncEngine
from zenray.engine.engine import Engine
from zenray.engine.request import Delta, Final, Limits, Started


class EngineTarget:
    """An `AsyncEngine` around an engine this target does not own; it starts at `open`."""

    def __init__(self, engine: Engine, prompt_limits: PromptLimits, name: str = "engine") -> None:
        self.name = name
        self.engine = engine
        self._prompt_limits = prompt_limits
        self._async_engine = AsyncEngine(engine)

    async def open(self) -> None:
        await self._async_engine.start()

    async def close(self) -> None:
        await self._async_engine.shutdown(drain_timeout_s=1.0)

    async def stream(self, call: Call) -> AsyncIterator[Chunk | Ended]:
        request = CompletionRequest(
            uuid.uuid4().hex,
            completion_input(call.prompt),
            limits=Limits(max_tokens=call.max_tokens, ignore_eos=call.ignore_eos),
        )
        prompt = assemble(request, self.engine.model.tokenizer, self._prompt_limits)
        cached = 0
        async for event in self._async_engine.generate(prompt.generate_request(request)):
            if isinstance(event, Started):
                cached = event.cached_tokens
            elif isinstance(event, Delta):
                yield Chunk(event.text, len(event.token_ids))
            elif isinstance(event, Final):
                yield Ended(
                    event.finish_reason.value,
                    event.usage.prompt_tokens,
                    cached,
                    event.usage.completion_tokens,
                    event.timings.first_token_ms,
                )


def completion_input(prompt: Prompt) -> TextPrompt | Infill:
    """The request's input for a prompt: plain, or fill-in-the-middle when it has a suffix."""
    return TextPrompt(prompt.text) if prompt.suffix is None else Infill(prompt.text, prompt.suffix)
