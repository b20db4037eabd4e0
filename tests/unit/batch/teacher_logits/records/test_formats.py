"""Records there and back in every format."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.records_examples import VOCAB_SIZE, random_rows, random_vocabulary, steady
from zenray.batch.teacher_logits.records.codes import GRID_K
from zenray.batch.teacher_logits.records.compact import first_of_rows, from_steps, to_steps
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.planes import from_planes, to_planes
from zenray.engine.scoring import ScoredRows
from zenray.errors import InvalidRequest, OutputDamaged

NAMES = ["compact-24", "compact-48", "compact-255", "top-1", "top-50"]
names, seeds, counts = st.sampled_from(NAMES), st.integers(0, 10_000), st.integers(0, 8)


def exact_rows(name: str, seed: int, num_rows: int) -> ScoredRows:
    return random_rows(seed, num_rows, parse_format(name).score_format)


@steady
@given(names, seeds, counts)
def test_what_is_read_is_what_was_recorded_to_a_step_of_the_grid(name: str, seed: int, num_rows: int) -> None:
    record_format, vocabulary = parse_format(name), random_vocabulary(seed)
    exact = exact_rows(name, seed, num_rows)
    values = record_format.encode(exact, vocabulary, seed)
    assert list(values) == [field.name for field in record_format.fields]
    read = record_format.decode(values, num_rows, vocabulary)
    gold_R = exact.gold_logprobs_R.clip(min=-65535 / 512)
    assert np.abs(read.gold_logprobs_R - gold_R).max(initial=0) <= 0.5 / 512 + 1e-5
    assert np.abs(read.entropies_R - exact.entropies_R).max(initial=0) <= 0.5 / 512 + 1e-6
    rows_N = np.repeat(np.arange(num_rows), exact.head_counts_R)
    read_rows_N = np.repeat(np.arange(num_rows), read.head_counts_R)
    first_N, read_first_N = (np.diff(rows, prepend=-1) > 0 for rows in (rows_N, read_rows_N))
    assert read.head_ids_N[read_first_N].tolist() == exact.head_ids_N[first_N].tolist()
    by_id_N = np.lexsort((exact.head_ids_N, rows_N))
    read_by_id_N = np.lexsort((read.head_ids_N, read_rows_N))
    assert read.head_ids_N[read_by_id_N].tolist() == exact.head_ids_N[by_id_N].tolist()
    errors_N = read.head_logprobs_N[read_by_id_N] - exact.head_logprobs_N[by_id_N]
    steps_N = np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2])[np.digitize(-exact.head_logprobs_N[by_id_N], [3, 4, 5])]
    assert (np.abs(errors_N) <= steps_N + 1e-6).all()
    falls_N = np.diff(read.head_logprobs_N, prepend=0) <= 0
    assert (falls_N | read_first_N | np.append(False, read_first_N)[:-1]).all()
    assert np.allclose(read.tail_masses_R, exact.tail_masses_R, rtol=0.65, atol=GRID_K[-2] if name[0] == "c" else 0.01)


@steady
@given(st.sampled_from(["compact-24", "compact-48"]), seeds, st.integers(1, 8))
def test_draws_are_kept_wherever_the_tail_has_mass(name: str, seed: int, num_rows: int) -> None:
    record_format, vocabulary = parse_format(name), random_vocabulary(seed)
    exact = exact_rows(name, seed, num_rows)
    read = record_format.decode(record_format.encode(exact, vocabulary, seed), num_rows, vocabulary)
    has_mass_R = read.tail_masses_R > 0
    assert read.tail_ids_RS[has_mass_R].tolist() == exact.tail_ids_RS[has_mass_R].tolist()
    assert (read.tail_ids_RS[~has_mass_R] == -1).all()
    assert (np.diff(read.tail_ids_RS, axis=1) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_bytes_follow_from_records_and_seed_alone(name: str) -> None:
    record_format, vocabulary, exact = parse_format(name), random_vocabulary(1), exact_rows(name, 1, 40)
    values = record_format.encode(exact, vocabulary, 5)
    assert values == record_format.encode(exact, vocabulary, 5)
    if name.startswith("compact"):
        assert values["head_codes"] != record_format.encode(exact, vocabulary, 6)["head_codes"]


@steady
@given(names, st.integers(0, 4), st.data())
def test_any_bytes_are_read_or_refused(name: str, num_rows: int, data: st.DataObject) -> None:
    """Of plausible lengths or not; whatever is read has tokens of the vocabulary alone."""
    record_format, vocabulary = parse_format(name), random_vocabulary(1)
    values = record_format.encode(exact_rows(name, 1, num_rows), vocabulary, 1)
    for field in values:
        changed = data.draw(st.one_of(st.just(values[field]), st.binary(max_size=12)), label=field)
        if changed and data.draw(st.booleans()):
            place = data.draw(st.integers(0, len(changed) - 1))
            changed = changed[:place] + data.draw(st.binary(min_size=1, max_size=1)) + changed[place + 1 :]
        values[field] = changed
    with contextlib.suppress(OutputDamaged):
        read = record_format.decode(values, num_rows, vocabulary)
        assert read.num_rows == num_rows
        assert ((read.head_ids_N >= 0) & (read.head_ids_N < VOCAB_SIZE)).all()
        assert ((read.tail_ids_RS >= -1) & (read.tail_ids_RS < VOCAB_SIZE)).all()
        assert not np.isnan(read.head_logprobs_N).any() and (read.head_logprobs_N <= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_or_an_added_byte_is_refused(name: str) -> None:
    record_format, vocabulary = parse_format(name), random_vocabulary(1)
    values = record_format.encode(exact_rows(name, 1, 3), vocabulary, 1)
    for field, data in values.items():
        for wrong in (data[:-1], data + b"\0"):
            with pytest.raises(OutputDamaged):
                record_format.decode({**values, field: wrong}, 3, vocabulary)


@pytest.mark.parametrize("name", ["", "compact", "compact-0", "compact-256", "top-257", "top-01", "top-5 ", "dense-50"])
def test_other_names_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"compact-1 to compact-255 .*, top-1 to top-256"):
        parse_format(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_format_knows_its_name(name: str) -> None:
    assert parse_format(name).name == name


def test_a_vocabulary_smaller_than_the_head_is_recorded_whole() -> None:
    exact = exact_rows("top-256", 1, 2)
    small = parse_format("top-50").score_format
    assert small.num_tail_samples == 0
    record_format = parse_format("top-256")
    read = record_format.decode(record_format.encode(exact, random_vocabulary(1), 1), 2, random_vocabulary(1))
    assert read.head_counts_R.tolist() == [256, 256]


def test_the_dense_format_refuses_heads_of_another_size() -> None:
    with pytest.raises(ValueError, match="has 50 entries a row"):
        parse_format("top-50").encode(exact_rows("top-20", 1, 2), random_vocabulary(1), 1)


@steady
@given(st.lists(st.lists(st.integers(0, 2**24), min_size=1, max_size=6), max_size=6))
def test_steps_begin_anew_in_every_run_and_bring_its_values_back(runs: list[list[int]]) -> None:
    values_N = np.array([value for run in runs for value in run], np.int64)
    first_N = first_of_rows(np.array([len(run) for run in runs], np.int32))
    steps_N = to_steps(values_N, first_N)
    assert steps_N[first_N].tolist() == [run[0] for run in runs]
    assert from_steps(steps_N, first_N).tolist() == values_N.tolist()


@steady
@given(st.lists(st.integers(0, 2**24 - 1), max_size=20))
def test_planes_bring_numbers_back_and_keep_like_bytes_together(numbers: list[int]) -> None:
    data = to_planes(np.array(numbers, np.int64), 3)
    assert data == b"".join(bytes(number >> shift & 255 for number in numbers) for shift in (0, 8, 16))
    assert from_planes(data, 3, len(numbers)).tolist() == numbers
