"""What is chosen stays until something clearly better comes, and then as much as possible stays in place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.context.pieces import ContextSource, Snippet
from zenray.context.prompt.bounded import BoundedCache
from zenray.context.prompt.candidates import Candidate
from zenray.context.prompt.memory import Remembered, SelectionMemory
from zenray.context.prompt.query import Query
from zenray.context.prompt.ranking import Ranked
from zenray.context.prompt.selection import Selection, Stickiness, choose
from zenray.context.surroundings import Document, Surroundings


def ranked(name: str, score: float, cost: int = 10, source: ContextSource = ContextSource.OPEN_FILE) -> Ranked:
    return Ranked(Candidate(Snippet(source, name, "x" * cost)), score)


def cost(candidate: Candidate) -> int:
    return len(candidate.snippet.text)


def names(selection: Selection) -> list[str]:
    return [each.candidate.snippet.path for each in selection.shown]


A, B, C, D = ranked("a", 4.0), ranked("b", 3.0), ranked("c", 2.0), ranked("d", 1.0)


def test_the_best_that_fit_are_taken_and_stand_nearest_to_the_cursor() -> None:
    large = ranked("large", 3.5, cost=25)
    chosen = choose(None, [A, large, B, C, D], 30, cost)
    assert names(chosen) == ["c", "b", "a"]
    assert [each.candidate.snippet.path for each in chosen.over_budget] == ["large", "d"]


def test_what_lives_longer_stands_further_in_front() -> None:
    definition = ranked("definition", 1.0, source=ContextSource.DEFINITION)
    imported = ranked("import", 5.0, source=ContextSource.IMPORT)
    assert names(choose(None, [imported, A, definition], 99, cost)) == ["import", "a", "definition"]


def test_a_good_selection_is_kept_in_its_order() -> None:
    before = choose(None, [A, B, C], 30, cost)
    today = [ranked("b", 5.0), ranked("d", 4.5), ranked("a", 3.0), ranked("c", 3.0)]
    assert names(choose(before, today, 30, cost)) == names(before)


def test_the_best_of_all_enters_at_once_and_the_worst_leaves() -> None:
    before = choose(None, [A, B, C], 30, cost)
    today = [ranked("new", 4.5), ranked("new too", 4.2), A, B, C]
    assert names(choose(before, today, 30, cost)) == ["b", "a", "new"]


def test_a_selection_that_lost_its_worth_is_replaced_from_behind() -> None:
    before = choose(None, [A, B, C], 30, cost)
    today = [ranked("a", 9.0), ranked("new", 8.0), ranked("newer", 7.0)]
    assert names(choose(before, today, 30, cost)) == ["a", "newer", "new"]


def test_a_smaller_allowance_drops_the_worst() -> None:
    before = choose(None, [A, B, C], 30, cost)
    assert names(choose(before, [A, B, C], 20, cost)) == ["b", "a"]


candidates = st.lists(st.tuples(st.integers(0, 12), st.floats(0.01, 1), st.integers(1, 30)), max_size=12)


@settings(deadline=None)
@given(st.lists(candidates, min_size=1, max_size=5), st.integers(0, 80), st.integers(0, 3), st.floats(0, 1))
def test_never_over_and_nothing_twice(
    days: list[list[tuple[int, float, int]]], allowance: int, must: int, kept: float
) -> None:
    selection = None
    for day in days:
        today = {name: ranked(str(name), score, size) for name, score, size in day}
        found = sorted(today.values(), key=lambda each: -each.score)
        selection = choose(selection, found, allowance, cost, Stickiness(must, kept))
        assert selection.cost(cost) <= allowance
        keys = [each.candidate.key for each in (*selection.shown, *selection.over_budget)]
        assert len(set(keys)) == len(keys)
        assert {each.candidate.key for each in found} <= set(keys)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 20))
def test_a_bounded_cache_stays_within_its_bound_and_keeps_the_latest(keys: list[int], bound: int) -> None:
    cache: BoundedCache[int, str] = BoundedCache(bound, lambda key: key)
    for key in keys:
        assert cache.get_or_make(key, str) == str(key)
        held = [each for each in range(1, 10) if cache.get(each) is not None]
        assert sum(held) <= bound
        assert key in held or key > bound


PATHS = st.sampled_from("abc")
SHARED = [Document(f"shared{number}", "", "x" * 10 * number) for number in range(4)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("st"), PATHS, st.integers(0, 60), st.sets(st.integers(0, 3))), max_size=30))
def test_the_memory_of_selections_counts_every_document_once_and_stays_within_its_bounds(
    kept: list[tuple[str, str, int, set[int]]],
) -> None:
    memory = SelectionMemory(max_selections=4, max_characters=100)
    for session_id, path, size, shared in kept:
        around = Surroundings(documents=tuple(SHARED[number] for number in sorted(shared)))
        selection = Remembered(Document(path, "", "y" * size), 0, Query((), ()), around, Selection(()), None)
        memory.keep(session_id, path, selection)
        found = [memory.recall(session, path) for session in "st" for path in "abc"]
        held = {id(each): each for one in found if one for each in (one.document, *one.surroundings.documents)}
        assert memory.num_characters == sum(len(each.text) for each in held.values()) <= 100
        assert len(memory) == sum(one is not None for one in found) <= 4
    memory.end_session("s")
    memory.end_session("t")
    assert memory.num_characters == len(memory) == 0
