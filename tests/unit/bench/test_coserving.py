"""What a run of co-serving says: whose time counts where, and when its bounds are met."""

from __future__ import annotations

import itertools

import pytest

from zenray.bench.coserving import keystrokes
from zenray.bench.coserving_report import (
    JobTokens,
    Span,
    coserving_markdown,
    coserving_row,
    job_rate,
    step_ms,
)
from zenray.bench.prompts import Prompt
from zenray.bench.statistics import Arrival, RequestRecord

EDITORS = Span("editors alone", 100, 110, has_editors=True, has_job=False)
JOB = Span("job alone", 110, 120, has_editors=False, has_job=True)
BOTH = Span("both", 120, 130, has_editors=True, has_job=True)
SPANS = (EDITORS, JOB, BOTH)


def request(due_s: float, ttft_s: float) -> RequestRecord:
    return RequestRecord("fim/x", due_s, due_s + 1, (Arrival(due_s + ttft_s, 1, "x"),))


def steps(span: Span, every_s: float, tokens_each: int, messages: int = 3) -> list[JobTokens]:
    """Steps that end `every_s` apart, the messages of each half a millisecond apart."""
    count = round((span.end_s - span.begin_s) / every_s)
    ends = [span.begin_s + every_s * number for number in range(count)]
    return [JobTokens(end + 0.0005 * message, tokens_each) for end in ends for message in range(messages)]


def run(ttft_beside_s: float, tokens_beside: int) -> dict[str, object]:
    tokens = [*steps(JOB, 0.1, 4), *steps(BOTH, 0.1, tokens_beside)]
    records = [request(101, 0.1), request(104, 0.1), request(121, ttft_beside_s), request(125, ttft_beside_s)]
    row = coserving_row(SPANS, tokens, records)
    load = {"editors": 2, "pause_s": 8, "job_tokens": 160}
    machine = {"processor": "a", "threads": 2}
    settings = {"config": {"model": {"name": "m"}}, "load": load}
    return {"created": "2026-01-01T00:00", "machine": machine, "settings": settings, "results": [row]}


def test_a_steps_messages_are_one_step() -> None:
    gaps = step_ms(steps(JOB, 0.1, 1), [JOB])
    assert len(gaps) == 99
    assert all(gap == pytest.approx(99, abs=0.01) for gap in gaps)
    assert step_ms(steps(JOB, 0.1, 1), [BOTH]) == []


def test_a_rate_counts_the_tokens_of_its_spans_alone() -> None:
    tokens = [*steps(JOB, 0.1, 4), *steps(BOTH, 0.1, 2)]
    assert job_rate(tokens, [JOB]) == pytest.approx(120)
    assert job_rate(tokens, [JOB, BOTH]) == pytest.approx(90)
    assert job_rate(tokens, []) == 0


@pytest.mark.parametrize(("ttft_s", "verdict"), [(0.21, "met"), (0.23, "missed")])
def test_first_tokens_may_be_a_fifth_and_a_step_later(ttft_s: float, verdict: str) -> None:
    lines = coserving_markdown(run(ttft_s, 4)).splitlines()
    (line,) = [line for line in lines if "TTFT p95" in line]
    assert line.endswith(f"one step: 219 ms | {verdict} |")


@pytest.mark.parametrize(("tokens", "verdict"), [(4, "met"), (3, "missed")])
def test_the_job_keeps_four_fifths(tokens: int, verdict: str) -> None:
    lines = coserving_markdown(run(0.1, tokens)).splitlines()
    (line,) = [line for line in lines if "tokens/s" in line]
    assert line.endswith(f"≥ 80% | {verdict} |")


def test_an_editors_prompts_grow_a_line_at_a_time() -> None:
    calls = keystrokes(Prompt("long", "f", "".join(f"line {number}\n" for number in range(30))))
    texts = [call.prompt.text for call in calls]
    assert all(later.startswith(text) and later != text for text, later in itertools.pairwise(texts))
    assert len(texts) == 10
