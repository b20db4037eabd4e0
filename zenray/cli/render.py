"""How the events of a completion look: on a terminal, in a pipe, as JSON lines."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from rich.text import Text

from zenray.api.totals import total_drafter_usage
from zenray.cli.console import printable, stderr, stdout
from zenray.cli.drafters import acceptance, drafter_table
from zenray.engine.request import DrafterUsage
from zenray.v1 import common_pb2, completion_pb2

if TYPE_CHECKING:
    from zenray.v1.completion_pb2 import CompleteEvent, Final, Started

_LINES_BEFORE, _LINES_AFTER = 6, 3


class Recorder:
    """Times of a stream as its reader saw them, and what the finals reported."""

    def __init__(self) -> None:
        self.sent_at = time.perf_counter()
        self.first_at: float | None = None
        self.last_at = self.sent_at
        self.num_first_tokens = 0
        self.num_tokens = 0
        self.prompt_tokens = self.cached_tokens = 0
        self.finals: list[Final] = []

    def see(self, event: CompleteEvent) -> None:
        now = time.perf_counter()
        kind = event.WhichOneof("event")
        if kind == "started":
            self.prompt_tokens, self.cached_tokens = event.started.prompt_tokens, event.started.cached_tokens
        elif kind == "delta" and event.delta.token_count:
            if self.first_at is None:
                self.first_at, self.num_first_tokens = now, event.delta.token_count
            self.num_tokens += event.delta.token_count
            self.last_at = now
        elif kind == "final":
            self.finals.append(event.final)

    @property
    def ttft_ms(self) -> float | None:
        return None if self.first_at is None else (self.first_at - self.sent_at) * 1000

    @property
    def tokens_per_second(self) -> float | None:
        """Over the time after the first token; None where there was only one event."""
        if self.first_at is None or self.last_at <= self.first_at:
            return None
        return (self.num_tokens - self.num_first_tokens) / (self.last_at - self.first_at)

    @property
    def rounds(self) -> int:
        """Verifier steps that chose tokens, over all choices."""
        return sum(final.usage.rounds for final in self.finals)

    @property
    def tokens_per_round(self) -> float | None:
        return self.num_tokens / self.rounds if self.rounds else None

    @property
    def drafters(self) -> tuple[DrafterUsage, ...]:
        """What each drafter did, over all choices."""
        return total_drafter_usage(
            DrafterUsage(entry.drafter, entry.rounds, entry.drafted_tokens, entry.accepted_tokens)
            for final in self.finals
            for entry in final.usage.drafters
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "event": "stats",
            "ttft_ms": _rounded(self.ttft_ms),
            "server_first_token_ms": _rounded(self.finals[0].timings.first_token_ms if self.finals else None),
            "total_ms": _rounded((self.last_at - self.sent_at) * 1000),
            "tokens_per_second": _rounded(self.tokens_per_second),
            "completion_tokens": self.num_tokens,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "finish_reasons": [finish_reason(final) for final in self.finals],
            "rounds": self.rounds,
            "tokens_per_round": _rounded(self.tokens_per_round),
            "drafters": [
                {**asdict(entry), "acceptance": _rounded(acceptance(entry.accepted_tokens, entry.drafted_tokens))}
                for entry in self.drafters
            ],
        }


class Rendering(Protocol):
    """Shows events as they come. `end` is called once, also when the stream broke."""

    def show(self, event: CompleteEvent) -> None: ...

    def end(self) -> None: ...

    def show_stats(self, recorder: Recorder) -> None: ...


class Plain:
    """The inserted text and nothing else; several choices one after the other, a line between them.

    A suggestion is made at the end; any other text is written as it comes.
    """

    def __init__(self, num_choices: int, is_suggestion: bool = False) -> None:
        self._num_choices, self._is_suggestion = num_choices, is_suggestion

    def show(self, event: CompleteEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "delta" and self._num_choices == 1 and not self._is_suggestion:
            sys.stdout.write(event.delta.text)
        elif kind == "final" and self._num_choices > 1:
            text = inserted_text(event.final, self._is_suggestion)
            ending = "" if text.endswith("\n") else "\n"
            sys.stdout.write(f"--- choice {event.final.index + 1} of {self._num_choices}\n{text}{ending}")
        elif kind == "final" and self._is_suggestion:
            sys.stdout.write(inserted_text(event.final, True))
        sys.stdout.flush()

    def end(self) -> None:
        sys.stdout.flush()

    def show_stats(self, recorder: Recorder) -> None:
        _print_stats(recorder)


class JsonLines:
    """One object per event; `event` says which."""

    def show(self, event: CompleteEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "started":
            started = event.started
            self._write(
                {
                    "event": "started",
                    "request_id": started.request_id,
                    "prompt_tokens": started.prompt_tokens,
                    "cached_tokens": started.cached_tokens,
                    **({"attribution": attribution} if (attribution := _attribution(started)) else {}),
                    **({"reused": True} if started.reused else {}),
                }
            )
        elif kind == "delta":
            delta = event.delta
            self._write({"event": "delta", "index": delta.index, "text": delta.text, "token_count": delta.token_count})
        elif kind == "final":
            final = event.final
            self._write(
                {
                    "event": "final",
                    "index": final.index,
                    "text": final.text,
                    **({"suggestion": _suggestion(final)} if final.HasField("suggestion") else {}),
                    "finish_reason": finish_reason(final),
                    "usage": {
                        "prompt_tokens": final.usage.prompt_tokens,
                        "completion_tokens": final.usage.completion_tokens,
                        "cached_tokens": final.usage.cached_tokens,
                        "saved_tokens": final.usage.saved_tokens,
                        "rounds": final.usage.rounds,
                    },
                    "timings": {
                        "queue_ms": _rounded(final.timings.queue_ms),
                        "first_token_ms": _rounded(final.timings.first_token_ms),
                        "total_ms": _rounded(final.timings.total_ms),
                    },
                }
            )

    def end(self) -> None:
        pass

    def show_stats(self, recorder: Recorder) -> None:
        self._write(recorder.as_dict())

    @staticmethod
    def _write(value: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()


class Terminal:
    """The text grows between what stands before and after it; suggestions and several choices are shown when they
    end."""

    def __init__(self, before: str, after: str, num_choices: int, is_suggestion: bool = False) -> None:
        self._before, self._after, self._num_choices = before, after, num_choices
        self._is_suggestion = is_suggestion
        self._console = stdout()
        self._open = False
        self._ends_line = True

    def show(self, event: CompleteEvent) -> None:
        kind = event.WhichOneof("event")
        if self._num_choices == 1:
            if kind == "started":
                self._begin()
            elif kind == "delta" and not self._is_suggestion:
                self._write(event.delta.text, "inserted")
            elif kind == "final":
                if self._is_suggestion:
                    self._write(inserted_text(event.final, True), "inserted")
                self._finish(event.final)
        elif kind == "final":
            title = f"choice {event.final.index + 1} of {self._num_choices} ({finish_reason(event.final)})"
            self._console.print(Text(title, "bold"))
            self._begin()
            self._write(inserted_text(event.final, self._is_suggestion), "inserted")
            self._finish(event.final)
            self._console.print()

    def end(self) -> None:
        if not self._ends_line:
            self._console.print()
            self._ends_line = True

    def show_stats(self, recorder: Recorder) -> None:
        _print_stats(recorder)

    def _begin(self) -> None:
        lines = self._before.splitlines(keepends=True)
        tail = lines[-_LINES_BEFORE:] if not self._before.endswith(("\n", "\r")) else lines[-_LINES_BEFORE + 1 :]
        self._write("".join(tail), "quiet")
        self._open = True

    def _finish(self, final: Final) -> None:
        if not inserted_text(final, self._is_suggestion):
            why = _FILTERS_IN_WORDS.get(final.suggestion.filter) if self._is_suggestion else None
            self._write(f"(nothing to insert: {why})" if why else "(nothing to insert)", "warn")
        if not self._open:
            return
        self._open = False
        lines = self._after.splitlines(keepends=True)
        self._write("".join(lines[: _LINES_AFTER + 1]), "quiet")
        self.end()

    def _write(self, text: str, style: str) -> None:
        if not text:
            return
        shown = printable(text.replace("\r\n", "\n").replace("\r", "\n"))
        self._console.out(shown, end="", style=style)  # unlike print, keeps tabs and never wraps
        self._ends_line = shown.endswith("\n")


_FILTERS_IN_WORDS = {
    completion_pb2.SUGGESTION_FILTER_EMPTY: "only white space came",
    completion_pb2.SUGGESTION_FILTER_PREFIX_ECHO: "it repeats what stands before the cursor",
    completion_pb2.SUGGESTION_FILTER_SUFFIX_ECHO: "it repeats what stands after the cursor",
    completion_pb2.SUGGESTION_FILTER_SECRET: "it looks like a secret",
}


def inserted_text(final: Final, is_suggestion: bool) -> str:
    """The suggestion, where one was asked for and made; else the text as it came."""
    return final.suggestion.text if is_suggestion and final.HasField("suggestion") else final.text


def finish_reason(final: Final) -> str:
    return str(common_pb2.FinishReason.Name(final.finish_reason)).removeprefix("FINISH_REASON_")


def _attribution(started: Started) -> dict[str, int]:
    """Prompt tokens by source, in prompt order."""
    name = completion_pb2.ContextSource.Name
    return {name(each.source).removeprefix("CONTEXT_SOURCE_"): each.token_count for each in started.attribution}


def _suggestion(final: Final) -> dict[str, Any]:
    name = completion_pb2.SuggestionFilter.Name(final.suggestion.filter).removeprefix("SUGGESTION_FILTER_")
    reason = None if name == "UNSPECIFIED" else name
    return {"text": final.suggestion.text, "filter": reason, "changes": list(final.suggestion.changes)}


_REASONS_IN_WORDS = {
    "EOS": "the model ended",
    "STOP": "stop text",
    "LENGTH": "length limit",
    "DEADLINE": "deadline",
    "CANCELLED": "cancelled",
    "SUPERSEDED": "superseded by a newer request",
    "SCOPE_END": "end of the block",
    "SUFFIX_MATCH": "reached the text after the cursor",
    "REPETITION": "said the same again and again",
}


def _print_stats(recorder: Recorder) -> None:
    """Two lines: how fast it was; what went in and why it ended. Then what the drafters did, if any drafted."""
    speed: list[str] = []
    if recorder.ttft_ms is not None:
        inside = recorder.finals[0].timings.first_token_ms if recorder.finals else 0
        speed.append(f"TTFT {recorder.ttft_ms:.0f} ms" + (f" (server {inside:.0f} ms)" if inside else ""))
    if recorder.tokens_per_second is not None:
        speed.append(f"{recorder.tokens_per_second:.1f} tokens/s")
    total_s = recorder.last_at - recorder.sent_at
    speed.append(f"{recorder.num_tokens} tokens" + (f" in {total_s:.2f} s" if recorder.num_tokens else ""))
    reasons = dict.fromkeys(finish_reason(final) for final in recorder.finals)
    ends = ", ".join(f"{reason} ({_REASONS_IN_WORDS.get(reason, reason.lower())})" for reason in reasons)
    context = f"prompt {recorder.prompt_tokens} tokens, {recorder.cached_tokens} cached"
    for line in (" · ".join(speed), f"{context} · {ends}" if ends else context):
        stderr().print(Text(line, "quiet"))
    changes = list(dict.fromkeys(change for final in recorder.finals for change in final.suggestion.changes))
    if changes:
        stderr().print(Text(f"suggestion: {', '.join(changes)}", "quiet"))
    if recorder.drafters:
        per_round = f"{recorder.num_tokens} tokens in {recorder.rounds} verifier rounds"
        stderr().print(Text(f"{per_round}, {recorder.tokens_per_round:.2f} each (1 without drafts):", "quiet"))
        stderr().print(drafter_table(recorder.rounds, recorder.drafters))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
