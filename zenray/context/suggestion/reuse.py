"""Whether a completion begun for one request answers a later one of the same document: a pure policy.

While somebody types what is being suggested, every keystroke asks for the rest of a text that is there already or on
its way. Such a request takes that rest; any other one replaces what came before it.

The text behind the cursor must be the same. An editor that closes a bracket by itself changes it: that is another gap,
and the model is asked again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zenray.context.request import CompletionRequest, EditorState, SuggestionOptions
from zenray.engine.request import FinishReason, Limits, Sampling

MIN_CUT_CHARACTERS = 16
"""What must remain of a text that was cut short: of less, little more than a word would be shown."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a gap is to be filled. Completions on equal terms may stand for each other."""

    language: str
    model: str
    sampling: Sampling
    limits: Limits
    options: SuggestionOptions


@dataclass(frozen=True, slots=True)
class Gap:
    """The text around the cursor, and the terms; None is for a request that wants a completion of its own."""

    before: str
    after: str
    terms: Terms | None


def gap_of(request: CompletionRequest) -> Gap:
    """The gap of a request, which must be an editor's."""
    given = request.input
    assert isinstance(given, EditorState)
    return Gap(given.before, given.after, _terms(request, given.language))


def _terms(request: CompletionRequest, language: str) -> Terms | None:
    """A seed, several choices and log-probabilities ask for exactly one text: it is never somebody else's.

    A deadline is each request's own, so it is no part of the terms.
    """
    sampling, options = request.sampling, request.suggestion
    exact = sampling.seed is not None or sampling.n > 1 or sampling.logprobs is not None or sampling.prompt_logprobs
    if exact or not options.reuse:
        return None
    return Terms(language, request.model, sampling, replace(request.limits, deadline_ms=None), options)


def typed_between(older: Gap, newer: Gap) -> str | None:
    """What was typed at the cursor from `older` to `newer`; None when they differ in anything else."""
    if older.terms is None or older.terms != newer.terms or older.after != newer.after:
        return None
    return newer.before[len(older.before) :] if newer.before.startswith(older.before) else None


def agrees(typed: str, text: str) -> bool:
    """While `text` still grows: what was typed is its beginning, or may prove to be."""
    return text.startswith(typed) or typed.startswith(text)


def remains(typed: str, text: str, *, cut_short: bool) -> bool:
    """Whether more of the finished `text` than white space is worth offering behind what was typed of it."""
    if not text.startswith(typed):
        return False
    rest = text[len(typed) :]
    return len(rest) >= MIN_CUT_CHARACTERS if cut_short else bool(rest.strip())


def is_cut_short(reason: FinishReason, num_tokens: int, limits: Limits) -> bool:
    """The text could have gone on. LENGTH is also the end of the last line that was asked for, which is none."""
    out_of_tokens = reason is FinishReason.LENGTH and num_tokens >= limits.max_tokens
    return out_of_tokens or reason is FinishReason.DEADLINE
