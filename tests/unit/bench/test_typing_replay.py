"""Replaying a typing session: every key at its own time, and what was of use before the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from zenray.bench.document import update_document
from zenray.bench.targets import Chunk, Ended
from zenray.bench.typing_replay import Began, SuggestionRecord, replay
from zenray.bench.typing_report import SCHEMA, compare_typing, typing_markdown
from zenray.bench.typing_sessions import Edited, Event, Moment, Moved, Opened, TypingSession, recorded_sessions
from zenray.bench.typing_statistics import PauseWaits, summarise_typing, useful_characters

SECOND = 1000


def typed(*times_ms: int, text: str = "abcdef") -> TypingSession:
    """One document, one letter of `text` at each of the times."""
    keys = [Edited(time_ms, "a.py", number + 2, number, 0, text[number]) for number, time_ms in enumerate(times_ms)]
    return TypingSession("t", "here", "MIT", 0, (Opened(0, "a.py", "python", "\n"), *keys))


class FakeServer:
    """Answers with the text that is typed next, a character every `gap_s` behind `first_s`. One that supersedes ends
    the older stream when a newer request comes, as zenray does."""

    def __init__(self, first_s: float, gap_s: float = 0.0, supersedes: bool = False, fail_on: int = -1) -> None:
        self.first_s, self.gap_s, self.supersedes, self.fail_on = first_s, gap_s, supersedes, fail_on
        self.one_at_a_time = False
        self.seen: list[tuple[float, Event]] = []
        self.closed_early = 0
        self.sessions: list[str] = []
        self._newest = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def begin(self, session_id: str, opened: Sequence[Opened]) -> None:
        self.sessions.append(session_id)

    def see(self, event: Event) -> None:
        self.seen.append((asyncio.get_running_loop().time(), event))

    async def suggest(self, moment: Moment) -> AsyncIterator[Began | Chunk | Ended]:
        self._newest += 1
        mine, done = self._newest, False
        try:
            yield Began(100, 90)
            await asyncio.sleep(self.first_s)
            if mine - 1 == self.fail_on:
                done = True
                raise RuntimeError("out of luck")
            for character in moment.typed_next or "xyz":
                if self.supersedes and mine != self._newest:
                    break
                yield Chunk(character, 1)
                await asyncio.sleep(self.gap_s)
            done = True
            yield Ended("EOS", 100, 90, 3)
        finally:
            self.closed_early += not done


Run = Callable[[Any], Any]


def test_keys_come_at_their_own_times_whatever_the_server_does(run_virtually: Run) -> None:
    server = FakeServer(first_s=30.0, supersedes=True)
    session = typed(100, 250, 1000)
    run_virtually(replay(session, server, "s"))
    start_s = server.seen[0][0] - 0.1
    assert [round((at_s - start_s) * 1e3) for at_s, _ in server.seen] == [100, 250, 1000]
    assert [event for _, event in server.seen] == list(session.events[1:])
    assert server.sessions == ["s"]


def test_a_server_that_does_not_supersede_has_its_connections_closed(run_virtually: Run) -> None:
    server = FakeServer(first_s=0.2)
    records = run_virtually(replay(typed(100, 250, 1000), server, "s"))
    assert server.closed_early == 1
    assert [record.ttft_ms is not None for record in records] == [False, True, True]
    assert records[1].ttft_ms == pytest.approx(200)
    assert [record.obsolete_s is None for record in records] == [False, False, True]


def test_a_client_that_closes_nothing_sends_the_newest_when_the_one_under_way_has_ended(run_virtually: Run) -> None:
    server = FakeServer(first_s=0.5)
    server.one_at_a_time = True
    records: list[SuggestionRecord] = run_virtually(replay(typed(0, 100, 200, 300), server, "s"))
    assert server.closed_early == 0
    assert [bool(record.arrivals) for record in records] == [True, False, False, True]
    assert records[0].ttft_ms is None, "its text came too late to be of use"
    assert records[3].ttft_ms == pytest.approx(200 + 500) and records[3].sent_s - records[3].due_s == pytest.approx(0.2)


def test_a_cursor_that_moves_away_makes_a_request_useless_too(run_virtually: Run) -> None:
    session = typed(100)
    session = TypingSession("t", "", "", 0, (*session.events, Moved(200, "a.py", 0)))
    server = FakeServer(first_s=0.5)
    (record,) = run_virtually(replay(session, server, "s"))
    assert server.closed_early == 1 and record.ttft_ms is None and record.quiet_ms == pytest.approx(100)


def test_what_comes_after_the_next_key_counts_for_nothing(run_virtually: Run) -> None:
    server = FakeServer(first_s=0.05, gap_s=0.04, supersedes=True)
    records: list[SuggestionRecord] = run_virtually(replay(typed(0, 100, 200), server, "s"))
    assert server.closed_early == 0
    assert records[0].shown == "bc" and useful_characters(records[0]) == 2
    assert records[0].ttft_ms == pytest.approx(50) and records[0].tfcl_ms is None and records[0].total_ms is None


def test_a_failed_request_is_a_record_and_the_typing_goes_on(run_virtually: Run) -> None:
    records = run_virtually(replay(typed(0, SECOND, 2 * SECOND), FakeServer(0.1, fail_on=1), "s"))
    assert [record.error for record in records] == ["", "RuntimeError: out of luck", ""]
    summary = summarise_typing(records)
    assert summary["failed"] == 1 and summary["answered"] == 2 and summary["errors"] == ["RuntimeError: out of luck"]


def test_the_last_request_does_not_hold_the_replay_for_ever(run_virtually: Run) -> None:
    (record,) = run_virtually(replay(typed(0), FakeServer(first_s=1e6), "s"))
    assert record.ended is None and record.ended_s - record.due_s < 10


def test_a_real_session_against_a_quick_server_is_answered_key_by_key(run_virtually: Run) -> None:
    session = recorded_sessions()[0].excerpt(0, 20_000)
    records = run_virtually(replay(session, FakeServer(first_s=0.01), "s"))
    again = run_virtually(replay(session, FakeServer(first_s=0.01), "s"))
    assert records == again, "the same replay twice"
    summary = summarise_typing(records)
    assert summary["answered"] == summary["requests"] == len(records) > 50
    assert summary["cached_share"] == pytest.approx(0.9)
    assert summary["ttft_ms"]["p50"] == pytest.approx(10)
    assert summary["pause_ttft_ms"]["seen"] == summary["pause_ttft_ms"]["count"] > 2
    assert summary["wasted_tokens"] == 0


def test_pauses_without_an_answer_are_slower_than_all_others() -> None:
    waits = PauseWaits.of([30.0, None, 10.0, 20.0])
    assert (waits.count, waits.seen, waits.p50, waits.p95) == (4, 3, 20.0, None)
    assert PauseWaits.of([None, None, 5.0]).p50 is None
    assert PauseWaits.of([]) == PauseWaits(0, 0, None, None, ())


def test_a_reused_completion_has_read_no_prompt_and_its_text_was_generated_once(run_virtually: Run) -> None:
    class Reusing(FakeServer):
        async def suggest(self, moment: Moment) -> AsyncIterator[Began | Chunk | Ended]:
            number = moment.edit.version - 2
            yield Began(100, 60, reused=number > 0)
            await asyncio.sleep(0.2 - number * 0.05)
            yield Chunk("abcdef"[number + 1 :], 5 - number)
            yield Ended("EOS", 100, 60, 5 - number)

    server = Reusing(0, supersedes=True)
    summary = summarise_typing(run_virtually(replay(typed(0, 50, 100), server, "s")))
    assert summary["answered"] == 1 and summary["reused"] == 2 and summary["requests_with_cache_counts"] == 3
    assert summary["cached_share_fresh"] == pytest.approx(0.6)
    assert summary["cached_share"] == pytest.approx(260 / 300)
    assert summary["completion_tokens"] == 5 and summary["wasted_tokens"] == 0


def test_a_text_that_nobody_saw_whole_is_wasted(run_virtually: Run) -> None:
    records = run_virtually(replay(typed(0, 50, 100), FakeServer(0.04, gap_s=0.02, supersedes=True), "s"))
    summary = summarise_typing(records)
    assert summary["wasted_tokens"] == sum(record.completion_tokens for record in records[:2]) > 0
    assert summary["completion_tokens"] > summary["wasted_tokens"]


def test_the_best_peer_of_the_same_weights_is_the_one_compared_with(run_virtually: Run) -> None:
    def result(key: str, size: str, first_s: float) -> dict[str, Any]:
        records = run_virtually(replay(typed(0, SECOND, 2 * SECOND), FakeServer(first_s), "s"))
        ours = key.startswith("zenray")
        return {
            "key": key,
            "label": key,
            "size": size,
            "ours": ours,
            "foreign_cpu_share": 0,
            **summarise_typing(records),
        }

    results = [result("zenray-a", "a", 0.05), result("llama-a", "a", 0.2), result("vllm-a", "a", 0.3)]
    results.append(result("llama-b", "b", 0.01))
    rows = compare_typing(results)
    assert {row["peer"] for row in rows} == {"llama-a", None}
    assert rows[0]["ratio"] == pytest.approx(0.25)
    report = {
        "schema": SCHEMA, "created": "2026-01-01", "not_measured": {"vllm-b": "no"}, "plot": "typing.png",
        "llama_client": "hold",
        "windows": {"prefix_lines": 64, "suffix_lines": 16, "extra_lines": 16},
        "machine": {"processor": "p", "threads": 2}, "max_tokens": 32, "results": results,
        "typed": {"sessions": ["t"], "seconds": 2.0, "requests": 3, "pauses": 3, "pause_ms": 500}, "comparisons": rows,
    }  # fmt: skip
    text = typing_markdown(report)
    assert "| zenray-a: TTFT p50 of what was answered | 50.0 | 200 (llama-a) | 0.25 | ≤ 0.5 | met |" in text
    assert "vllm-b was not measured: no." in text
    document = "<!-- typing:begin -->\nold\n<!-- typing:end -->\n"
    assert update_document(document, report) == f"<!-- typing:begin -->\n{text}\n<!-- typing:end -->\n"
