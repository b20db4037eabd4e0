from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.bench.statistics import (
    Arrival,
    Distribution,
    RequestRecord,
    percentile,
    steady_decode_rate,
    summarise,
)

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


def record(*times_s: float, due_s: float = 0.0, text: str = "x", **fields: object) -> RequestRecord:
    arrivals = tuple(Arrival(at_s, 1, text) for at_s in times_s)
    return RequestRecord("r", due_s, times_s[-1] if times_s else due_s, arrivals, **fields)  # type: ignore[arg-type]


@given(values, st.floats(0, 100))
def test_percentile_is_numpys(data: list[float], percent: float) -> None:
    assert percentile(sorted(data), percent) == pytest.approx(numpy.percentile(data, percent), rel=1e-9, abs=1e-6)


@given(values)
def test_a_distribution_is_ordered_and_bounded(data: list[float]) -> None:
    seen = Distribution.of(data)
    assert seen.minimum is not None
    assert seen.minimum <= seen.p50 <= seen.p95 <= seen.p99 <= seen.maximum  # type: ignore[operator]
    assert (seen.minimum, seen.maximum, seen.count) == (min(data), max(data), len(data))


def test_nothing_measured_has_no_numbers() -> None:
    assert Distribution.of([None, None]) == Distribution(0)
    assert Distribution.of([]).p50 is None


@pytest.mark.parametrize(("data", "percent"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_percentiles_that_do_not_exist(data: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(data, percent)


def test_latencies_count_from_when_the_request_was_due() -> None:
    seen = record(2.0, 2.5, 2.75, due_s=1.5)
    assert seen.ttft_ms == pytest.approx(500)
    assert seen.itl_ms == pytest.approx([500, 250])
    assert seen.tpot_ms == pytest.approx(375)
    assert seen.e2e_ms == pytest.approx(1250)


def test_a_chunk_of_several_tokens_shares_its_time() -> None:
    arrivals = (Arrival(1.0, 1, "a"), Arrival(1.9, 3, "bcd"))
    assert RequestRecord("r", 0.0, 1.9, arrivals).tpot_ms == pytest.approx(300)


def test_text_without_a_token_is_no_first_token() -> None:
    arrivals = (Arrival(0.5, 0, ""), Arrival(1.0, 1, "a"))
    assert RequestRecord("r", 0.0, 1.0, arrivals).ttft_ms == pytest.approx(1000)


@pytest.mark.parametrize(
    ("texts", "expected_ms"),
    [
        (("a", "b\n", "c"), 2000),
        (("\n", "  \n", "x", "\n"), 4000),  # blank lines are not a line of code
        (("a", "b", "c"), 3000),  # the stream's end ends the line
        (("\n", " "), None),
        ((), None),
    ],
)
def test_first_complete_line(texts: tuple[str, ...], expected_ms: float | None) -> None:
    arrivals = tuple(Arrival(number + 1.0, 1, text) for number, text in enumerate(texts))
    assert RequestRecord("r", 0.0, float(len(texts)), arrivals).tfcl_ms == expected_ms


def test_a_server_knows_better_how_many_tokens_there_were() -> None:
    assert record(1.0, 2.0, completion_tokens=7).num_tokens == 7
    assert record(1.0, 2.0).num_tokens == 2


def test_failures_are_counted_and_enter_no_latency() -> None:
    summary = summarise([record(1.0, 2.0), record(9.0, error="Broken: pipe"), record(8.0, error="Broken: pipe")])
    assert (summary.num_requests, summary.num_failed) == (3, 2)
    assert summary.errors == {"Broken: pipe": 2}
    assert summary.ttft_ms.maximum == pytest.approx(1000)
    assert summary.output_tokens == 2
    assert summary.wall_s == pytest.approx(9)


def test_an_empty_run_has_a_summary() -> None:
    summary = summarise([])
    assert (summary.num_requests, summary.output_tokens_per_s, summary.ttft_ms.count) == (0, 0.0, 0)


def test_the_steady_rate_counts_only_while_everybody_decodes() -> None:
    early = record(0.0, 1.0, 2.0, 3.0, 4.0)
    late = record(2.0, 3.0, 4.0, 5.0)
    # From 2 s (the late one's first token) to 4 s (the early one's last): 2 tokens each.
    assert steady_decode_rate([early, late]) == pytest.approx(2.0)


@given(st.integers(2, 40), st.integers(1, 8), st.floats(0.001, 10))
def test_the_steady_rate_of_a_regular_batch(num_tokens: int, batch: int, gap_s: float) -> None:
    streams = [record(*(5 + gap_s * index for index in range(num_tokens))) for _ in range(batch)]
    assert steady_decode_rate(streams) == pytest.approx(batch / gap_s, rel=1e-6)


@pytest.mark.parametrize("streams", [[], [record(1.0)], [record(1.0, 2.0), record(3.0, 4.0)]])
def test_no_steady_rate_where_streams_never_decode_together(streams: list[RequestRecord]) -> None:
    assert steady_decode_rate(streams) is None
