"""Rows of logits to heads, tail masses and draws: right, whatever the logits, and the same bits whatever is beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.ops import Backend
from zenray.ops.cpu import CpuBackend
from zenray.ops.reference import ReferenceBackend
from zenray.ops.summary import NEGLIGIBLE, RowSummaries

several = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Result = TypeVar("Result")
TOLERANCE = 3e-6


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_threads(num_threads: int, call: Callable[[], Result]) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def rows_of(summaries: RowSummaries, rows: slice | torch.Tensor) -> list[torch.Tensor]:
    """Bits, so that what is no number equals itself."""
    return [getattr(summaries, field.name)[rows].contiguous().view(torch.int32) for field in fields(summaries)]


def check(
    summary: RowSummaries,
    row: int,
    logits_V: torch.Tensor,
    target: int,
    uniform: float,
    mass: float,
    least: float = 0.0,
) -> None:
    """Row `row` of a summary is one of these logits, up to the rounding of sums."""
    x = logits_V.double().numpy()
    shifted = x - x.max()
    with np.errstate(under="ignore"):
        weights = np.where(shifted >= NEGLIGIBLE, np.exp(shifted), 0.0)
    probabilities = weights / weights.sum()
    logprobs = shifted - np.log(weights.sum())
    possible = probabilities > 0
    entropy = -(probabilities[possible] * logprobs[possible]).sum()
    np.testing.assert_allclose(float(summary.gold_logprobs_R[row]), logprobs[target], rtol=1e-6, atol=TOLERANCE)
    np.testing.assert_allclose(float(summary.entropies_R[row]), entropy, rtol=TOLERANCE, atol=TOLERANCE)

    ranked = np.lexsort((np.arange(len(x)), -x))
    width, count = summary.head_ids_RK.shape[1], int(summary.head_counts_R[row])
    assert summary.head_ids_RK[row].tolist() == [*ranked[:count], *[-1] * (width - count)]
    np.testing.assert_allclose(
        summary.head_logprobs_RK[row].numpy(),
        [*logprobs[ranked[:count]], *[-np.inf] * (width - count)],
        rtol=1e-6, atol=TOLERANCE,
    )  # fmt: skip
    reached = probabilities[ranked].cumsum()
    is_cut = count < len(x) and probabilities[ranked[count]] < least * (1 + TOLERANCE)
    assert count == 1 or probabilities[ranked[count - 1]] >= least * (1 - TOLERANCE)
    if mass >= 1:
        assert count == width or is_cut
    else:
        assert count == width or is_cut or reached[count - 1] >= mass - TOLERANCE
        assert count == 1 or reached[count - 2] < mass + TOLERANCE

    tail = probabilities.copy()
    tail[ranked[:count]] = 0.0
    np.testing.assert_allclose(float(summary.tail_masses_R[row]), tail.sum(), rtol=TOLERANCE, atol=1e-40)
    draws = summary.tail_ids_RS[row].numpy()
    if tail.sum() == 0:
        assert (draws == -1).all()
        return
    assert (np.diff(draws) >= 0).all()
    assert (tail[draws] > 0).all()
    below, above = (tail.cumsum() - tail)[draws] / tail.sum(), tail.cumsum()[draws] / tail.sum()
    quantiles = (np.arange(len(draws)) + uniform) / max(1, len(draws))
    assert (below - TOLERANCE <= quantiles).all()
    assert (quantiles <= above + TOLERANCE).all()


@st.composite
def logits(draw: st.DrawFn) -> torch.Tensor:
    """Rows [R, V] with ties, impossible tokens and tokens far above or below the others."""
    shape = draw(st.integers(1, 5)), draw(st.one_of(st.integers(1, 40), st.integers(1, 1500)))
    seed = draw(st.integers(0, 1000))
    rows = normal(*shape, seed=seed) * draw(st.sampled_from([0.0, 1.0, 5.0, 40.0]))
    if draw(st.booleans()):
        rows = rows.round()
    for number, odd in enumerate((-torch.inf, 30.0, -30.0, -200.0)):
        share = draw(st.sampled_from([0.0, 0.0, 0.05, 0.9]))
        rows[torch.rand(shape, generator=torch.Generator().manual_seed(seed + number)) < share] = odd
    rows[:, draw(st.integers(0, shape[1] - 1))] = draw(st.floats(-50, 50, width=32))  # one that is possible
    return rows


@given(
    logits_RV=logits(),
    max_head=st.integers(1, 60),
    head_mass=st.sampled_from([0.1, 0.5, 0.9, 0.9975, 1.0]),
    num_samples=st.integers(0, 6),
    least=st.sampled_from([0.0, 0.0, 1e-4, 1 / 300, 0.3]),
    seed=st.integers(0, 1000),
)
@several
def test_a_summary_has_the_most_probable_tokens_and_the_rest_as_mass_and_draws(
    backend: Backend,
    logits_RV: torch.Tensor,
    max_head: int,
    head_mass: float,
    num_samples: int,
    least: float,
    seed: int,
) -> None:
    num_rows, num_columns = logits_RV.shape
    generator = torch.Generator().manual_seed(seed)
    targets_R = torch.randint(num_columns, (num_rows,), generator=generator)
    uniforms_R = torch.rand(num_rows, generator=generator, dtype=torch.float64)
    summary = backend.summarise(logits_RV, targets_R, uniforms_R, max_head, head_mass, num_samples, least)
    assert summary.head_ids_RK.shape == (num_rows, min(max_head, num_columns))
    assert summary.tail_ids_RS.shape == (num_rows, num_samples)
    for row in range(num_rows):
        check(summary, row, logits_RV[row], int(targets_R[row]), float(uniforms_R[row]), head_mass, least)


def test_a_whole_vocabulary(compiled: CpuBackend, exact: ReferenceBackend) -> None:
    logits_RV = normal(3, 151_936, seed=4) * 2.5
    logits_RV[1, 77_777] += 20
    logits_RV[2] = 1.0
    targets_R, uniforms_R = torch.tensor([5, 77_777, 151_935]), torch.tensor([0.0, 0.3, 1 - 2.0**-53]).double()
    for head_mass in (0.9975, 1.0):
        actual, expected = (
            ops.summarise(rows, targets_R, uniforms_R, 48, head_mass, 4)
            for ops, rows in ((compiled, logits_RV), (exact, logits_RV.double()))
        )
        assert torch.equal(actual.head_ids_RK, expected.head_ids_RK)
        assert torch.equal(actual.head_counts_R, expected.head_counts_R)
        for row in range(3):
            check(actual, row, logits_RV[row], int(targets_R[row]), float(uniforms_R[row]), head_mass)


def test_a_tails_mass_is_right_however_small(backend: Backend) -> None:
    logits_RV = normal(4, 2000)
    logits_RV[:, 900] = torch.tensor([20.0, 40.0, 60.0, 80.0])
    summary = backend.summarise(logits_RV, torch.full((4,), 900), torch.full((4,), 0.5).double(), 8, 0.99, 4)
    assert summary.head_counts_R.tolist() == [1, 1, 1, 1]
    others = torch.cat((logits_RV[:, :900], logits_RV[:, 901:]), dim=1).double()
    expected_R = (others.logsumexp(dim=1) - logits_RV.double().logsumexp(dim=1)).exp()
    torch.testing.assert_close(summary.tail_masses_R.double(), expected_R, rtol=TOLERANCE, atol=0)
    # Entropy and the certain token's log-probability live on the same scale.
    torch.testing.assert_close(summary.gold_logprobs_R.double(), -expected_R, rtol=1e-5, atol=1e-15)
    assert bool((summary.entropies_R.double() > expected_R).all())


@pytest.mark.parametrize("num_samples", [1, 4])
def test_over_all_uniforms_a_tail_token_is_drawn_in_proportion_to_its_probability(
    compiled: CpuBackend, num_samples: int
) -> None:
    num_columns, grid = 700, 4000
    logits_V = normal(num_columns, seed=3) * 2
    uniforms_R = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    summary = compiled.summarise(
        logits_V.expand(grid, -1).contiguous(), torch.zeros(grid, dtype=torch.int64), uniforms_R, 16, 0.9, num_samples
    )
    tail_V = torch.softmax(logits_V.double(), dim=0)
    tail_V[summary.head_ids_RK[0, : int(summary.head_counts_R[0])].long()] = 0
    mean_counts_V = torch.bincount(summary.tail_ids_RS.flatten().long(), minlength=num_columns) / grid
    # A grid of evenly spaced points hits an interval as often as its length says, give or take one.
    assert bool(((mean_counts_V - num_samples * tail_V / tail_V.sum()).abs() <= 1 / grid + TOLERANCE).all())


@given(
    num_rows=st.integers(1, 40),
    num_columns=st.integers(1, 900),
    max_head=st.integers(1, 50),
    threads=st.integers(1, 3),
    data=st.data(),
)
@several
def test_a_rows_summary_does_not_depend_on_other_rows_or_threads(
    compiled: CpuBackend, num_rows: int, num_columns: int, max_head: int, threads: int, data: st.DataObject
) -> None:
    logits_RV = normal(num_rows, num_columns) * 4
    targets_R, uniforms_R = torch.arange(num_rows) % num_columns, torch.linspace(0, 0.99, num_rows).double()
    whole = compiled.summarise(logits_RV, targets_R, uniforms_R, max_head, 0.99, 4)
    start = data.draw(st.integers(0, num_rows - 1))
    part = slice(start, data.draw(st.integers(start + 1, num_rows)))
    alone = with_threads(
        threads, lambda: compiled.summarise(logits_RV[part], targets_R[part], uniforms_R[part], max_head, 0.99, 4)
    )
    assert all(map(torch.equal, rows_of(whole, part), rows_of(alone, slice(None))))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("num_columns", [1, 17, 1000])
def test_a_row_that_is_no_distribution_has_no_summary_and_spoils_no_other(
    backend: Backend, num_columns: int, bad: float
) -> None:
    logits_RV, targets_R = normal(5, num_columns), torch.zeros(5, dtype=torch.int64)
    uniforms_R = torch.full((5,), 0.25).double()
    clean = backend.summarise(logits_RV, targets_R, uniforms_R, 8, 1.0, 3)
    logits_RV[2, num_columns - 1 if bad != -torch.inf else slice(None)] = bad
    summary = backend.summarise(logits_RV, targets_R, uniforms_R, 8, 1.0, 3)
    others = torch.tensor([0, 1, 3, 4])
    assert all(map(torch.equal, rows_of(summary, others), rows_of(clean, others)))
    assert bool(torch.stack((summary.gold_logprobs_R, summary.entropies_R, summary.tail_masses_R))[:, 2].isnan().all())
    assert int(summary.head_counts_R[2]) == 0
    assert summary.head_ids_RK[2].unique().tolist() == summary.tail_ids_RS[2].unique().tolist() == [-1]
