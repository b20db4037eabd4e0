"""Gaps to fillings: one engine in this process, with the prompts, stop rules and post-processing of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from zenray.bench.infilling_gap import Gap, GapKind
from zenray.bench.infilling_measures import Filling
from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import PromptLimits
from zenray.context.request import FOR_EDITORS, RAW, CompletionRequest, EditorState, SuggestionOptions
from zenray.context.suggestion.post_process import post_process
from zenray.context.surroundings import NOTHING_AROUND, Surroundings
from zenray.engine.engine import Engine
from zenray.engine.request import Final, GenerateRequest, Limits

MAX_TOKENS: dict[GapKind, int] = {
    "humaneval line": 32,
    "humaneval lines": 80,
    "library line": 32,
    "library lines": 80,
    "cross-file": 32,
}
"""What the longest missing texts need; every treatment has the same."""

_LIBRARY_PROMPT_TOKENS = 384
"""Most of a library gap's prompt, which holds nothing but its own long file: reading more would take half of a run."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """How raw tokens become a suggestion, by a name for the report."""

    name: str
    options: SuggestionOptions


TREATMENTS = (
    Treatment("raw", RAW),
    Treatment("stops", SuggestionOptions(scope_end=True, suffix_match=True, single_line=None, repetition=True)),
    Treatment("all", FOR_EDITORS),
)
"""Raw tokens; with the stop rules; with token healing and post-processing too, as editors get it."""


@dataclass(frozen=True, slots=True)
class Task:
    """One gap in one way of asking."""

    gap: Gap
    treatment: Treatment
    with_context: bool


def limits_of(kind: GapKind, limits: PromptLimits) -> PromptLimits:
    """`limits`, tighter for library gaps."""
    if not kind.startswith("library"):
        return limits
    return replace(limits, max_prompt_tokens=min(limits.max_prompt_tokens, _LIBRARY_PROMPT_TOKENS))


def fill_gaps(
    engine: Engine, limits: PromptLimits, tasks: Sequence[Task], advance: Callable[[], None]
) -> dict[Task, Filling]:
    """The filling of every task, several decoded at once. Tasks that make the same request share one answer: decoding
    is greedy. `advance` hears of each request that has ended, or that another one answers."""
    prompts = {task: _prompt(task, engine, limits) for task in tasks}
    requests = {task: prompts[task].generate_request(_request(task)) for task in tasks}
    answers = dict(_generate(engine, list(dict.fromkeys(requests.values())), advance))
    for _ in range(len(tasks) - len(answers)):
        advance()
    return {task: _filling(task, prompts[task], answers[requests[task]]) for task in tasks}


def _request(task: Task) -> CompletionRequest:
    gap = task.gap
    state = EditorState(gap.path, "python", gap.filled(""), len(gap.before))
    limits = Limits(max_tokens=MAX_TOKENS[gap.kind])
    return CompletionRequest("infilling", state, limits=limits, suggestion=task.treatment.options)


def _prompt(task: Task, engine: Engine, limits: PromptLimits) -> AssembledPrompt:
    around = Surroundings(documents=task.gap.documents) if task.with_context else NOTHING_AROUND
    return assemble(_request(task), engine.model.tokenizer, limits, around)


def _generate(
    engine: Engine, requests: Sequence[GenerateRequest], advance: Callable[[], None]
) -> Iterator[tuple[GenerateRequest, Final]]:
    """Every request's end, never more of them in the engine than run at once, so that neighbours share prompts."""
    waiting = list(reversed(requests))
    running: dict[int, GenerateRequest] = {}
    while waiting or running:
        while waiting and len(running) < engine.settings.max_running_sequences:
            request = waiting.pop()
            running[engine.add(request)] = request
        for handle, event in engine.step():
            if isinstance(event, Final):
                advance()
                yield running.pop(handle), event


def _filling(task: Task, prompt: AssembledPrompt, final: Final) -> Filling:
    gap, text = task.gap, final.text
    if task.treatment.options.post_process:
        suggestion = post_process(
            text, before=gap.before, after=gap.after, language="python", finish_reason=final.finish_reason
        )
        text = suggestion.text
    return Filling(
        gap,
        text,
        final.usage.completion_tokens,
        final.usage.prompt_tokens,
        final.finish_reason.value,
        bool(gap.definition) and gap.definition in prompt.text,
    )
