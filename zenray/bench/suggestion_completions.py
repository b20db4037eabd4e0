"""Completions of gaps by a real model, recorded: raw text, as far as the model goes on without any rule.

A record per line of JSON, so that a run that was ended goes on where it was, and a report can be made again without the
model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zenray.bench.suggestion_gaps import Gap
from zenray.context.assemble import assemble
from zenray.context.request import RAW, CompletionRequest, EditorState
from zenray.engine.request import Final, FinishReason, Limits

MAX_TOKENS = 64
MAX_PROMPT_TOKENS = 384
_THROUGHPUT = ("engine.max_running_sequences=8", "engine.max_step_tokens=512", "engine.mixed_step_tokens=512")
"""Nobody waits for a stream here."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote into a gap."""

    text: str
    finish_reason: FinishReason
    num_tokens: int


def recorded_completions(
    model: str, gaps: Sequence[Gap], record: Path, advance: Callable[[], None]
) -> dict[Gap, Completion]:
    """The completion of every gap: from `record` as far as it has them, the others by the model, and then recorded."""
    known = _read(record)
    missing = [gap for gap in gaps if _key(model, gap) not in known]
    if missing:
        with record.open("a", encoding="utf-8") as file:
            for gap, completion in _complete(model, missing):
                known[_key(model, gap)] = completion
                line = {
                    "key": _key(model, gap),
                    "text": completion.text,
                    "finish_reason": completion.finish_reason.value,
                    "num_tokens": completion.num_tokens,
                }
                file.write(json.dumps(line) + "\n")
                file.flush()
                advance()
    return {gap: known[_key(model, gap)] for gap in gaps}


def _read(record: Path) -> dict[str, Completion]:
    if not record.exists():
        return {}
    rows = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {row["key"]: Completion(row["text"], FinishReason(row["finish_reason"]), row["num_tokens"]) for row in rows}


def _key(model: str, gap: Gap) -> str:
    """What a completion depends on."""
    parts = (model, str(MAX_TOKENS), str(MAX_PROMPT_TOKENS), gap.language, gap.before, gap.after)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _complete(model: str, gaps: Sequence[Gap]) -> Iterator[tuple[Gap, Completion]]:
    from zenray.bench.runs import plainly, prompt_limits
    from zenray.build import build_engine
    from zenray.config_load import load_config

    overrides = [f"model.name={model}", f"context.max_prompt_tokens={MAX_PROMPT_TOKENS}", *_THROUGHPUT]
    config = plainly(load_config("local", None, overrides))
    engine = build_engine(config)
    limits = prompt_limits(config, engine)
    waiting = list(reversed(gaps))
    running: dict[int, Gap] = {}
    try:
        while waiting or running:
            while waiting and len(running) < engine.settings.max_running_sequences:
                gap = waiting.pop()
                state = EditorState(gap.path, gap.language, gap.before + gap.after, len(gap.before))
                request = CompletionRequest("suggestions", state, limits=Limits(max_tokens=MAX_TOKENS), suggestion=RAW)
                prompt = assemble(request, engine.model.tokenizer, limits)
                running[engine.add(prompt.generate_request(request))] = gap
            for handle, event in engine.step():
                if isinstance(event, Final):
                    usage = event.usage
                    yield running.pop(handle), Completion(event.text, event.finish_reason, usage.completion_tokens)
    finally:
        engine.shutdown()
