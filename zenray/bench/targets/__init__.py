"""What can be measured: one protocol, and the spelling of a target on the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from zenray.bench.prompts import Prompt
from zenray.errors import ConfigError, ZenrayError

SPELLINGS = "grpc://HOST:PORT, http://HOST:PORT or https://HOST:PORT (any OpenAI-compatible server)"


class TargetFailed(ZenrayError):
    """A target does not answer, answers with an error, or sends a stream that is not one of completions."""


@dataclass(frozen=True, slots=True)
class Call:
    """One completion to ask for: greedy, streamed, run to `max_tokens` where the target can be told to."""

    prompt: Prompt
    max_tokens: int = 64
    ignore_eos: bool = True


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the stream. `num_tokens` is the target's count, or 1 where it says none."""

    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream's end with what the target reports about itself; None where it says nothing."""

    finish_reason: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    server_first_token_ms: float | None = None


class Target(Protocol):
    """Something that completes code. `open` inside the event loop that will use it."""

    name: str

    async def open(self) -> None:
        """Connects or starts. Raises `TargetFailed` when nothing answers."""
        ...

    def stream(self, call: Call) -> AsyncIterator[Chunk | Ended]:
        """The chunks of one completion as they arrive, then one `Ended`. Raises whatever fails it."""
        ...

    async def close(self) -> None: ...


def remote_target(spec: str, model: str = "") -> Target:
    """The target `spec` names, not yet opened. Raises ConfigError for an unknown spelling."""
    scheme, separator, rest = spec.partition("://")
    if separator and rest:
        if scheme == "grpc":
            from zenray.bench.targets.grpc_door import GrpcTarget

            return GrpcTarget(rest.rstrip("/"), model)
        if scheme in ("http", "https"):
            from zenray.bench.targets.openai_door import OpenAITarget

            return OpenAITarget(spec, model)
    raise ConfigError(f"--target {spec!r} is not an address; allowed: {SPELLINGS}")
