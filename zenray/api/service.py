"""What the doors are written against: one service, whatever runs behind it.

The gRPC and HTTP doors decode, validate, call these methods and encode; they know nothing of Ray.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from zenray.config import RequestBoundsSettings, RequestDefaults
from zenray.context.assemble import AssembledPrompt
from zenray.context.document_events import DocumentEvent
from zenray.context.request import CompletionRequest
from zenray.context.suggestion.outcomes import OutcomeReport
from zenray.context.tokens import PromptTokenizer
from zenray.engine.request import EngineLoad, GenerateEvent
from zenray.experts.status import ExpertStatus


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The served model, what a silent request gets, and the most a request may ask for."""

    name: str
    architecture: str
    weight_format: str
    num_parameters: int
    context_length: int
    vocab_size: int
    supports_infill: bool
    license: str = ""
    sha256: str = ""
    created: int = 0
    """When serving began, in seconds since the epoch."""
    defaults: RequestDefaults = field(default_factory=RequestDefaults)
    bounds: RequestBoundsSettings = field(default_factory=RequestBoundsSettings)


@dataclass(frozen=True, slots=True)
class VerifierLoad:
    """What one verifier replica says of itself. `experts` is None where one process holds them all."""

    engine: EngineLoad
    experts: ExpertStatus | None = None

    @property
    def is_available(self) -> bool:
        """It takes requests."""
        return self.experts is None or self.experts.unavailable is None


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """Counters summed over the verifier replicas, how many of them take requests, and by replica where their
    experts are."""

    load: EngineLoad
    verifier_replicas: int
    experts: Mapping[str, ExpertStatus] = field(default_factory=dict)


class CompletionService(Protocol):
    """The service behind every door. All methods raise `zenray.errors` only.

    A request for a `TrackedEditor` is resolved by the service from the session's own state. The version it names
    may be on its way on another stream, so the service waits for it, for at most context.version_wait_ms
    (`SessionStore.resolve_soon`), before it raises StaleDocument.

    Requests are decoded and validated already. Closing the iterator of `complete` (`aclose`) stops the
    work; a door always closes it, also when its client has gone.
    """

    @property
    def tokenizer(self) -> PromptTokenizer:
        """For token texts of log-probabilities and echoed prompts."""
        ...

    def model_info(self) -> ModelCard:
        """Cheap: called once for every request. Raises Unavailable while no model is known."""
        ...

    def complete(self, request: CompletionRequest) -> AsyncGenerator[GenerateEvent, None]:
        """One Started, then Deltas, then one Final per choice. Errors come before the first event, except
        that Unavailable may end a stream whose verifier died under it."""
        ...

    async def assemble(self, request: CompletionRequest) -> AssembledPrompt:
        """The prompt `complete` would send to the verifier."""
        ...

    async def apply_document_event(self, session_id: str, event: DocumentEvent) -> None:
        """Brings the session up to date; `session_id` is not empty. Raises StaleDocument when `event` builds on a
        state this service does not have, InvalidRequest when it does not fit its document; the session is then
        as before. (`SessionStore.apply`)"""
        ...

    async def prefetch(self, request: CompletionRequest) -> int:
        """Generates at batch priority what `request`, of a session, asks for, and keeps it for the request to
        come. Returns when the work has ended: the completion tokens kept, 0 when a request of the session
        came first. Raises as `complete` does."""
        ...

    async def report_outcome(self, report: OutcomeReport) -> None:
        """Counts what became of a suggestion. A completion that is not remembered is counted all the same."""
        ...

    async def load(self) -> ServiceLoad:
        """How busy the verifiers are."""
        ...

    async def check_ready(self) -> None:
        """Raises Unavailable unless a request sent now would be served."""
        ...
