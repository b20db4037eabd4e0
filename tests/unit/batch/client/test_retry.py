from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.client.retry import pause_s


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_a_pause_is_anything_up_to_a_bound_that_doubles_and_ends(num_failures: int, seed: int) -> None:
    pauses = [pause_s(num_failures, Random(seed + each)) for each in range(20)]
    bound = min(5.0, 0.1 * 2.0 ** min(num_failures, 30))
    assert all(0.0 <= each <= bound for each in pauses)
    assert len(set(pauses)) == len(pauses)
