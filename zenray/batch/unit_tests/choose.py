"""Which functions a job takes when it may not take all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from zenray.batch.unit_tests.model import MinedFunction


def choose_functions(functions: Sequence[MinedFunction], most: int | None) -> list[MinedFunction]:
    """At most `most` functions in the order of their ids, which is as good as a shuffled one: whatever part of a job is
    finished is a fair sample of all of it.

    The repositories are asked in turn, each for its next function by id, until there are enough: a small repository
    is not drowned by a large one, and a larger `most` takes the same functions and more.
    """
    ordered = sorted(functions, key=lambda function: function.row_id)
    if most is None or len(ordered) <= most:
        return ordered
    turns: dict[str, int] = defaultdict(int)
    asked: list[tuple[int, str, MinedFunction]] = []
    for function in ordered:
        repository = function.provenance.repository
        asked.append((turns[repository], repository, function))
        turns[repository] += 1
    asked.sort(key=lambda turn: turn[:2])
    return sorted((function for _, _, function in asked[:most]), key=lambda function: function.row_id)
