"""Engine events to OpenAI's completion objects."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from zenray.context.tokens import PromptTokenizer
from zenray.engine.request import Delta, Final, FinishReason, GenerateEvent, Started, TokenLogprob

_LEAST_LOGPROB = -9999.0  # JSON has no infinity.

FINISH_REASONS = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.SCOPE_END: "stop",
    FinishReason.SUFFIX_MATCH: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.DEADLINE: "length",
    FinishReason.CANCELLED: "length",
    FinishReason.SUPERSEDED: "length",
}
"""OpenAI has two reasons: the text ended where it should, or it was cut."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request wants to see of each choice."""

    id: str
    created: int
    model: str
    num_choices: int
    """Per prompt; the choices of prompt i begin at i * num_choices."""
    logprobs: bool
    tokenizer: PromptTokenizer

    def envelope(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None, *, show_usage: bool) -> bytes:
        """One completion object as compact JSON; `usage` is present, maybe null, with `show_usage`."""
        completion: dict[str, Any] = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if show_usage:
            completion["usage"] = usage
        return json.dumps(completion, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")

    def choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, reason: FinishReason | None = None
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": FINISH_REASONS[reason] if reason else None,
            "zenray_finish_reason": reason.value if reason else None,
        }


@dataclass(slots=True)
class Logprobs:
    """Log-probabilities of one choice in OpenAI's four parallel lists, with offsets into its whole text."""

    tokenizer: PromptTokenizer
    offset: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Lists of earlier events, for a choice that is answered whole."""

    def lists(self, entries: tuple[TokenLogprob, ...]) -> dict[str, Any]:
        """The lists for the next tokens of the choice."""
        tokens: list[str] = []
        logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for entry in entries:
            token = token_text(entry.token_id, self.tokenizer)
            tokens.append(token)
            offsets.append(self.offset)
            self.offset += _num_characters(self.tokenizer.token_bytes(entry.token_id))
            if entry.logprob is None:
                logprobs.append(None)
                tops.append(None)
                continue
            logprobs.append(max(entry.logprob, _LEAST_LOGPROB))
            top: dict[str, float] = {}
            for token_id, logprob in (*entry.top, (entry.token_id, entry.logprob)):
                top.setdefault(token_text(token_id, self.tokenizer), max(logprob, _LEAST_LOGPROB))
            tops.append(top)
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Lists of `Logprobs.lists`, one behind the other."""
    return {name: [entry for part in parts for entry in part[name]] for name in _LIST_NAMES}


_LIST_NAMES = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def token_text(token_id: int, tokenizer: PromptTokenizer) -> str:
    """A token as OpenAI shows it: its text, a control token's spelling, or `bytes:\\x..` for part of a character."""
    raw = tokenizer.token_bytes(token_id)
    if not raw:
        return tokenizer.control_token_text(token_id) or ""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _num_characters(raw: bytes) -> int:
    """Characters that begin in `raw`."""
    return sum(byte & 0xC0 != 0x80 for byte in raw)


@dataclass(slots=True)
class UsageSum:
    """Token counts over the prompts and choices of one request; a prompt counts once for all its choices.

    Prediction tokens are those of drafts; unlike OpenAI's, rejected ones are no completion tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def add(self, event: GenerateEvent) -> None:
        if isinstance(event, Started):
            self.prompt_tokens += event.prompt_tokens
            self.cached_tokens += event.cached_tokens
        elif isinstance(event, Final):
            self.completion_tokens += event.usage.completion_tokens
            self.drafted_tokens += sum(drafter.drafted_tokens for drafter in event.usage.drafters)
            self.accepted_tokens += sum(drafter.accepted_tokens for drafter in event.usage.drafters)

    def as_dict(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {
                "accepted_prediction_tokens": self.accepted_tokens,
                "rejected_prediction_tokens": self.drafted_tokens - self.accepted_tokens,
            },
        }


class ChoiceFolder:
    """Turns the events of one prompt into stream chunks, or into whole choices at the end."""

    def __init__(self, shape: Shape, prompt_index: int, echoed: str) -> None:
        self._shape, self._echoed = shape, echoed
        self._first_index = prompt_index * shape.num_choices
        self._prompt_logprobs: tuple[TokenLogprob, ...] = ()
        self._choices: dict[int, Logprobs] = {}

    def start(self, event: Started) -> None:
        self._prompt_logprobs = event.prompt_logprobs

    def chunk(self, event: Delta | Final) -> dict[str, Any] | None:
        """The stream's choice for this event; None where it has nothing to show."""
        index = self._first_index + event.index
        text, lists = self._next(event)
        if isinstance(event, Final):
            return self._shape.choice(index, text, lists, event.finish_reason)
        return self._shape.choice(index, text, lists) if text or lists else None

    def fold(self, event: Delta | Final) -> dict[str, Any] | None:
        """The whole choice once its last event is here, None before."""
        _, lists = self._next(event)
        kept = self._choices[event.index].kept
        if lists:
            kept.append(lists)
        if isinstance(event, Delta):
            return None
        logprobs = joined(kept) if self._shape.logprobs else None
        index = self._first_index + event.index
        return self._shape.choice(index, self._echoed + event.text, logprobs, event.finish_reason)

    def _next(self, event: Delta | Final) -> tuple[str, dict[str, Any] | None]:
        """New text and lists of a choice; its first event brings the echoed prompt."""
        text = event.text if isinstance(event, Delta) else ""
        entries = event.logprobs if isinstance(event, Delta) else ()
        if event.index not in self._choices:
            self._choices[event.index] = Logprobs(self._shape.tokenizer)
            text = self._echoed + text
            entries = (*self._prompt_logprobs, *entries)
        if not (self._shape.logprobs and entries):
            return text, None
        return text, self._choices[event.index].lists(entries)
