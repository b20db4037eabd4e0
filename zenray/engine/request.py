"""What goes into the engine and what comes out: typed, validated at the edge, trusted inside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from zenray.engine.scoring import ScoredRows, Scoring
from zenray.errors import Unavailable


class Priority(IntEnum):
    """Smaller goes first. Interactive sequences may preempt batch ones, never the reverse."""

    INTERACTIVE = 0
    BATCH = 1


class FinishReason(Enum):
    """Why a choice ended. The names are those of `zenray.v1.FinishReason`."""

    EOS = "EOS"
    STOP = "STOP"
    LENGTH = "LENGTH"
    DEADLINE = "DEADLINE"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    SCOPE_END = "SCOPE_END"
    SUFFIX_MATCH = "SUFFIX_MATCH"
    REPETITION = "REPETITION"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Defaults are greedy and change nothing.

    `seed` None draws a random one when the request is admitted. Choice `index` of `n` uses its own
    stream derived from (seed, index), so choice 0 of n=4 equals the only choice of n=1.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop. `deadline_ms` counts from arrival; `max_lines` 0 is no limit."""

    max_tokens: int = 128
    max_lines: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    deadline_ms: int | None = None
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class TextStops:
    """Where a text ends because of what it says, judged by a `TextRule` that whoever builds the engine supplies.

    `before` and `after` are the document's text around the cursor, as much of it as the rules may look at;
    `language` is an LSP language id or empty. The flags are those of `zenray.v1.TextStops`.
    """

    language: str = ""
    before: str = ""
    after: str = ""
    scope_end: bool = False
    suffix_match: bool = False
    single_line: bool = False
    repetition: bool = False


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt for one verifier. `prompt_token_ids` is never empty and fits the context.

    Requests of one `session_id` may draft from each other's text; empty belongs to no session. The tokens
    generated spell `forced_prefix` first, which is no part of the text. With `scoring` the prompt is scored and nothing
    generated: one choice, `max_tokens` 0.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    priority: Priority = Priority.INTERACTIVE
    session_id: str = ""
    text_stops: TextStops | None = None
    forced_prefix: bytes = b""
    scoring: Scoring | None = None

    @classmethod
    def to_score(
        cls,
        request_id: str,
        token_ids: Iterable[int],
        scoring: Scoring,
        seed: int,
        priority: Priority,
        deadline_ms: int | None = None,
    ) -> GenerateRequest:
        """The request that scores `token_ids`; `seed` is that of the draws."""
        limits = Limits(max_tokens=0, deadline_ms=deadline_ms)
        return cls(request_id, tuple(token_ids), Sampling(seed=seed), limits, priority, scoring=scoring)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability (natural) and the `top` alternatives as (id, log-probability).

    `logprob` is None for the first token of a prompt, which nothing predicts.
    """

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class DrafterUsage:
    """What one drafter did for one choice: `rounds` verified drafts of `drafted_tokens` in all, of which
    `accepted_tokens` were the verifier's own choice; the others were wasted."""

    drafter: str
    rounds: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one choice.

    `rounds` verifier steps chose its tokens; each gave the accepted tokens of a draft and one of the verifier's
    own (the bonus token when a draft preceded it), the last one perhaps none: a choice may end within a draft.
    `saved_tokens` of `max_tokens` were not generated because the text ended by what it says.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    rounds: int = 0
    drafters: tuple[DrafterUsage, ...] = ()
    saved_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds from arrival. `first_token_ms` is 0 when no token was produced."""

    queue_ms: float
    first_token_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt is in the cache and generation begins, or its first records follow where it is scored. First event of
    every request, sent once."""

    prompt_tokens: int
    cached_tokens: int
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of choice `index`. Whole characters only; `text` may be empty while one is incomplete
    or while a stop string may still be forming."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Final:
    """The end of choice `index`, with its whole text (the concatenation of its deltas)."""

    index: int
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ends here with an error: no final follows."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class Scored:
    """Records of the positions that a step has computed, in order and without gaps. Between Started and Final; there is
    none of a request that is not to be scored."""

    rows: ScoredRows


GenerateEvent = Started | Delta | Final
ScoreEvent = Started | Scored | Final


@dataclass(frozen=True, slots=True)
class DrafterLoad:
    """Counters of one drafter since start, as `zenray.v1.DrafterLoad`.

    `timeouts` are rounds in which a remote drafter had nothing by the deadline; `draft_ms` is the time the
    verifier spent on drafting or waiting; `queue_age_ms` is the age of the newest answer when it was used,
    and `replicas` how many remote ones are connected (both 0 for local drafters).
    """

    drafter: str
    rounds: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    timeouts: int = 0
    draft_ms: float = 0.0
    queue_age_ms: float = 0.0
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Counters of one engine, as `zenray.v1.Load`."""

    running_sequences: int = 0
    waiting_sequences: int = 0
    max_waiting_sequences: int = 0
    free_blocks: int = 0
    cached_blocks: int = 0
    total_blocks: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    preemptions: int = 0
    rounds: int = 0
    scored_tokens: int = 0
    drafters: tuple[DrafterLoad, ...] = ()
