"""A minimal suite notices all that the whole one notices, and nothing in it is superfluous."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.unit_tests.validation.conflicts import settle_conflicts
from zenray.batch.unit_tests.validation.minimise import minimise

_SUITES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.frozensets(st.integers(0, 12)), max_size=12)


@given(_SUITES, st.randoms())
def test_nothing_is_lost_and_nothing_is_superfluous(suite: dict[str, frozenset[int]], random) -> None:
    costs = {test: random.randint(1, 5) for test in suite}
    kept = minimise(suite, costs)
    assert set().union(*(suite[test] for test in kept)) == set().union(*suite.values())
    for test in kept:
        others = set().union(*(suite[other] for other in kept if other != test))
        assert suite[test] - others, f"{test} can be left out of {kept}"
    shuffled = list(suite)
    random.shuffle(shuffled)
    assert minimise({test: suite[test] for test in shuffled}, costs) == kept


def test_of_equals_the_shorter_then_the_first_by_name() -> None:
    assert minimise({"b": {1, 2}, "a": {1, 2}, "c": {1, 2}}, {"a": 9, "b": 5, "c": 5}) == ("b",)


def test_one_test_takes_the_place_of_several() -> None:
    assert minimise({"a": {1}, "b": {2}, "c": {1, 2}}, {"a": 1, "b": 1, "c": 50}) == ("c",)


def test_what_later_choices_make_superfluous_is_removed() -> None:
    suite = {"big": {1, 2, 3, 4}, "left": {1, 2, 5}, "right": {3, 4, 6}}
    assert minimise(suite, dict.fromkeys(suite, 1)) == ("left", "right")


@given(st.frozensets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] != pair[1])))
def test_no_conflict_is_left_and_nobody_goes_without_one(disturbs: frozenset[tuple[int, int]]) -> None:
    gone = settle_conflicts(disturbs)
    left_out = {test for test, _ in gone}
    assert all(left_out & {*pair} for pair in disturbs)
    assert len(left_out) == len(gone)
    for test, other in gone:
        assert (test, other) in disturbs or (other, test) in disturbs


def test_one_bad_test_takes_no_good_ones_along() -> None:
    assert settle_conflicts({(0, 1), (0, 2), (0, 3)}) == ((0, 1),), "it breaks what all others see"
    assert settle_conflicts({(1, 0), (2, 0), (3, 0)}) == ((0, 1),), "it depends on what all others change"
    assert settle_conflicts({(1, 2)}) == ((1, 2),), "between two, the one that leaves something behind"
