"""Copies are found whatever their layout, near copies as often as theory says."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.unit_tests.mining.dedup import (
    LEAST_SIMILARITY,
    NUM_BANDS,
    NUM_PERMUTATIONS,
    Shingles,
    exact_key,
    jaccard,
    near_duplicates,
    normalised_source,
    shingles_of,
)
from zenray.batch.unit_tests.mining.mine import mine_functions
from zenray.batch.unit_tests.model import SkipReason


def normal(source: str) -> str:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return normalised_source(node)


def test_layout_comments_docstrings_annotations_and_the_name_do_not_count() -> None:
    plain = "def f(a, b=1):\n    c = a+b\n    return c"
    dressed = 'def g(a: int, b: int = 1) -> int:\n    """Adds."""\n\n    c: int = (a + b)  # so\n    return c\n'
    assert exact_key(normal(plain)) == exact_key(normal(dressed))
    assert exact_key(normal(plain)) != exact_key(normal(plain.replace("+", "-")))


def near_copies(seed: int, num_families: int) -> list[Shingles]:
    """Families of sets that share most of their elements."""
    source = random.Random(seed)
    documents = []
    for family in range(num_families):
        base = [f"{family}-{number}" for number in range(source.randrange(20, 120))]
        for copy in range(4):
            changed = source.randrange(0, len(base) // 3)
            kept = source.sample(base, len(base) - changed)
            documents.append(frozenset(kept + [f"{family}-{copy}-{number}" for number in range(changed)]))
    source.shuffle(documents)
    return documents


def test_recall_is_what_the_bands_promise() -> None:
    rows = NUM_PERMUTATIONS // NUM_BANDS
    expected = found = 0.0
    num_pairs = 0
    for seed in range(250):
        for left, right in combinations(near_copies(seed, 4), 2):
            similarity = jaccard(left, right)
            if similarity >= LEAST_SIMILARITY:
                num_pairs += 1
                expected += 1 - (1 - similarity**rows) ** NUM_BANDS
                found += len(near_duplicates([left, right]))
    assert num_pairs > 400
    assert expected / num_pairs > 0.95
    # Four standard deviations of so many draws.
    assert abs(found - expected) < 4 * (num_pairs * 0.05) ** 0.5 + 1


def test_no_pair_below_the_threshold_is_called_a_copy() -> None:
    documents = near_copies(7, 30)
    for number, earlier in near_duplicates(documents).items():
        assert earlier < number
        assert jaccard(documents[earlier], documents[number]) >= LEAST_SIMILARITY


def test_a_copy_of_a_left_out_copy_stands_on_its_own() -> None:
    base = [f"t{number}" for number in range(100)]
    chain = [frozenset(base[:80]), frozenset(base[9:89]), frozenset(base[18:98])]
    assert jaccard(chain[0], chain[1]) < LEAST_SIMILARITY  # 71/89
    near = [frozenset(base[:80]), frozenset(base[4:84]), frozenset(base[16:96])]
    assert near_duplicates(near) == {1: 0}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), st.randoms())
def test_what_is_kept_does_not_depend_on_the_order_of_reading(kinds: list[str], source: random.Random) -> None:
    bodies = {"a": "x + len(x) * 2 - x[0]", "b": "x - x[0] ** 3 + 1", "c": "x[1:] + x[:1] * 4"}
    documents = [
        SourceDocument(f"m{number}.py", f"def f{number}(x):\n    return {bodies[kind]}\n", "r", "")
        for number, kind in enumerate(kinds)
    ]
    expected = mine_functions(documents).functions
    source.shuffle(documents)
    assert mine_functions(documents).functions == expected
    assert len(expected) == len(set(kinds))


def test_copies_name_what_they_copy() -> None:
    body = "    total = 0\n    for value in values:\n        if value > 3:\n            total += value\n    return {}\n"
    source = "".join(
        f"def {name}(values):\n{body.format(result)}\n"
        for name, result in (("first", "total"), ("second", "total"), ("third", "(total, 1)"))
    )
    skipped = mine_functions([SourceDocument("m.py", source * 1, "r", "")]).skipped
    assert (skipped[0].qualified_name, skipped[0].reason) == ("second", SkipReason.DUPLICATE)
    assert skipped[0].detail == "of first in r/m.py"


def test_shingles_are_runs_of_five_tokens() -> None:
    assert shingles_of("a b c d e f") == {"a\x1fb\x1fc\x1fd\x1fe", "b\x1fc\x1fd\x1fe\x1ff"}
    assert shingles_of("a b") == {"a\x1fb"}


def test_digests_are_the_same_in_every_process_and_release() -> None:
    """A new release of rensa that permutes otherwise must raise the job's version: rows may come and go by it."""
    program = "from rensa import RMinHash as R; print(R.digests_from_token_sets([['a','b','c']], 128, 6)[0][:4])"
    digests = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert digests == {"[3324125810, 3364153418, 3500363568, 3593281481]\n"}
