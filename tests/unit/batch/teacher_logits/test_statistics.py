"""Histograms tell quantiles to the width of a bin, and figures do not depend on how rows are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.toy_teacher import toy_rows
from zenray.batch.teacher_logits.results.statistics import (
    KL_EDGES,
    ScoredSegment,
    histogram,
    quantile,
    statistics_columns,
)
from zenray.engine.scoring import Scoring

VALUES = st.lists(st.floats(2e-6, 9.0), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([0.1, 0.5, 0.9, 0.99]))
def test_quantiles_are_right_to_a_bin(values: list[float], share: float) -> None:
    found = quantile(np.array(histogram(np.array(values), KL_EDGES)), KL_EDGES, share)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    bin_ratio = KL_EDGES[1] / KL_EDGES[0]
    assert exact / bin_ratio <= found * (1 + 1e-9) and found <= exact * bin_ratio * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES)
def test_histograms_add_up(some: list[float], others: list[float]) -> None:
    parts = [np.array(histogram(np.array(each), KL_EDGES)) for each in (some, others, [*some, *others])]
    assert np.array_equal(parts[0] + parts[1], parts[2])
    assert parts[2].sum() == len(some) + len(others)


def test_what_lies_beyond_the_edges_is_counted_and_of_nothing_there_is_no_quantile() -> None:
    counts = histogram(np.array([-1.0, 0.0, 1e-9, 50.0, 1e6]), KL_EDGES)
    assert (counts[0], counts[-1]) == (3, 2)
    assert quantile(np.array(counts), KL_EDGES, 0.5) == KL_EDGES[0]
    assert quantile(np.array(counts), KL_EDGES, 0.99) == pytest.approx(KL_EDGES[-1])
    assert np.isnan(quantile(np.zeros(len(KL_EDGES) + 1, np.int64), KL_EDGES, 0.5))


def test_last_digits_of_another_machines_exponentials_do_not_change_what_is_kept() -> None:
    exact = toy_rows(range(40), Scoring(), 7, 300)
    kl_R = np.linspace(0.001, 0.4, exact.num_rows)
    here, there = (
        statistics_columns([ScoredSegment(exact, exact, each)]) for each in (kl_R, kl_R * (1 + 4 * np.finfo(float).eps))
    )
    assert here == there and here["segment_kl_sums"] == [pytest.approx(kl_R.sum(), abs=1e-6)]
