"""The block pool under any order of calls keeps its books, and finds only what was published."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zenray.engine.blocks import ROOT_HASH, BlockPool, chain_hash
from zenray.engine.request import Priority


def hashes_of(tokens: list[int], block_size: int) -> list[bytes]:
    hashes: list[bytes] = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        hashes.append(chain_hash(hashes[-1] if hashes else ROOT_HASH, tokens[start : start + block_size]))
    return hashes


class PoolMachine(RuleBasedStateMachine):
    """Sequences over a two-letter alphabet, so that prefixes are shared all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(num_blocks=8, block_size=2)
        self.tables: list[list[int]] = []

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9), priority=st.sampled_from(Priority))
    def start_sequence(self, tokens: list[int], priority: Priority) -> None:
        hashes = hashes_of(tokens, 2)
        expected = self.pool.count_cached(hashes)
        missing = self.pool.blocks_for(len(tokens)) - expected
        if missing > self.pool.num_available - self.pool.count_idle(hashes):
            return
        table = self.pool.acquire_cached(hashes, priority)
        assert len(table) == expected
        table += self.pool.allocate(missing, priority)
        for block, block_hash in zip(table, hashes, strict=False):
            self.pool.publish(block, block_hash)
        assert self.pool.count_cached(hashes) == len(hashes)
        self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 100))
    def end_sequence(self, which: int) -> None:
        self.pool.release(self.tables.pop(which % len(self.tables)))

    @rule()
    def forget_cache(self) -> None:
        self.pool.clear_cache()

    @invariant()
    def books_agree(self) -> None:
        self.pool.check_integrity(self.tables)

    def teardown(self) -> None:
        for table in self.tables:
            self.pool.release(table)
        assert self.pool.num_available == self.pool.num_blocks


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_eviction_takes_the_least_recently_used_and_shortens_from_the_end() -> None:
    pool = BlockPool(num_blocks=4, block_size=1)
    old, new = hashes_of([1, 2], 1), hashes_of([3, 4], 1)
    for hashes in (old, new):
        table = pool.allocate(2)
        for block, block_hash in zip(table, hashes, strict=True):
            pool.publish(block, block_hash)
        pool.release(table)
    pool.allocate(1)
    assert pool.count_cached(old) == 1
    assert pool.count_cached(new) == 2


def test_equal_blocks_after_different_prefixes_have_different_hashes() -> None:
    assert hashes_of([1, 2, 9], 1)[2] != hashes_of([2, 1, 9], 1)[2]


def test_without_a_prefix_cache_nothing_is_findable() -> None:
    pool = BlockPool(num_blocks=2, block_size=1, prefix_cache=False)
    block = pool.allocate(1)
    pool.publish(block[0], hashes_of([1], 1)[0])
    assert pool.count_cached(hashes_of([1], 1)) == 0
    pool.release(block)
    assert pool.num_free == 2
