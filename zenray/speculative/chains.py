"""The sequences and branches a draft model has read, and the KV blocks that hold what it read.

Branches share blocks by reference; whoever writes into a shared or findable block copies it first. Nobody
waits for space: the least recently used chains give theirs up and read again when they are wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from zenray.engine.blocks import ROOT_HASH, BlockPool, chain_hash
from zenray.engine.request import Sampling

GREEDY = Sampling()


class Chain:
    """Tokens of one sequence or branch; the first `num_computed` have their keys and values in `block_ids`.

    The first `num_committed` tokens are settled, the others a guess. `sampling`, `seed` and `num_prompt` are
    those of the sequence, so that a draft chooses as its verifier does.
    """

    __slots__ = (
        "_hashes", "block_ids", "last_used", "num_committed", "num_computed", "num_prompt", "num_published",
        "sampling", "seed", "token_ids",
    )  # fmt: skip

    def __init__(self, token_ids: Sequence[int], sampling: Sampling, seed: int, num_prompt: int) -> None:
        self.token_ids = list(token_ids)
        self.sampling, self.seed, self.num_prompt = sampling, seed, num_prompt
        self.num_committed = len(self.token_ids)
        self.num_computed = 0
        self.num_published = 0  # leading blocks offered to the prefix cache
        self.block_ids: list[int] = []
        self.last_used = 0
        self._hashes: list[bytes] = []

    @property
    def num_pending(self) -> int:
        """Tokens still to be read; at least 1, because the last one's logits choose the next token."""
        return len(self.token_ids) - self.num_computed

    def hashes(self, first: int, stop: int, block_size: int) -> Iterator[bytes]:
        """Hash chain of blocks [first, stop), all full; each is computed once."""
        for index in range(first, stop):
            while len(self._hashes) <= index:
                start = len(self._hashes) * block_size
                parent = self._hashes[-1] if self._hashes else ROOT_HASH
                self._hashes.append(chain_hash(parent, self.token_ids[start : start + block_size]))
            yield self._hashes[index]

    def replace_tokens(self, token_ids: Sequence[int], block_size: int) -> int:
        """Takes over `token_ids`; returns how many leading tokens stayed the same."""
        assert len(token_ids) > 0, "a chain has at least one token"
        common = common_prefix(self.token_ids, list(token_ids))
        self.token_ids[common:] = token_ids[common:]
        del self._hashes[common // block_size :]
        return common

    def branch(self, token_ids: Sequence[int], block_size: int) -> Chain:
        """A chain with `token_ids` whose `num_computed` tokens are those of this one; it holds no blocks yet."""
        other = Chain(self.token_ids, self.sampling, self.seed, self.num_prompt)
        other._hashes = list(self._hashes)
        common = other.replace_tokens(token_ids, block_size)
        other.num_committed = min(self.num_committed, common)
        other.num_computed = min(self.num_computed, common, len(token_ids) - 1)
        other.num_published = min(self.num_published, other.num_computed // block_size)
        return other


class Chains:
    """Owns the block tables of all open chains. `copy_block(source, target)` copies keys and values."""

    def __init__(self, pool: BlockPool, copy_block: Callable[[int, int], None]) -> None:
        self._pool = pool
        self._copy_block = copy_block
        self._open: dict[int, Chain] = {}
        self._clock = itertools.count(1)

    def __len__(self) -> int:
        return len(self._open)

    def open(self, chain: Chain) -> None:
        self._open[id(chain)] = chain
        self.touch(chain)

    def touch(self, chain: Chain) -> None:
        """Marks the chain as used now."""
        chain.last_used = next(self._clock)

    def close(self, chain: Chain) -> None:
        """Gives the chain's blocks back; published ones stay findable."""
        del self._open[id(chain)]
        self._drop(chain)

    def sync(self, chain: Chain, token_ids: Sequence[int]) -> None:
        """Commits `token_ids`: what was computed of their common prefix stays, the rest is forgotten."""
        common = chain.replace_tokens(token_ids, self._pool.block_size)
        self._truncate(chain, min(common, len(token_ids) - 1))
        chain.num_committed = len(token_ids)
        self.touch(chain)
        self.publish(chain)

    def fork(self, chain: Chain, token_ids: Sequence[int]) -> Chain:
        """A branch with `token_ids`, sharing every block of the common prefix, the last partial one too."""
        branch = chain.branch(token_ids, self._pool.block_size)
        branch.block_ids = chain.block_ids[: self._pool.blocks_for(branch.num_computed)]
        self._pool.share(branch.block_ids)
        self.open(branch)
        return branch

    def publish(self, chain: Chain) -> None:
        """Makes full blocks of committed, computed tokens findable."""
        full = min(chain.num_computed, chain.num_committed) // self._pool.block_size
        if full > chain.num_published:
            hashes = chain.hashes(chain.num_published, full, self._pool.block_size)
            for block, block_hash in zip(chain.block_ids[chain.num_published : full], hashes, strict=True):
                self._pool.publish(block, block_hash)
            chain.num_published = full

    def find_cached(self, chain: Chain) -> None:
        """Takes blocks of pending tokens from the prefix cache, where another chain has left them."""
        size = self._pool.block_size
        full = chain.num_computed // size
        hashes = list(chain.hashes(full, (len(chain.token_ids) - 1) // size, size))
        if self._pool.count_cached(hashes):
            self._truncate(chain, full * size)  # a partial block is covered by a whole one
            found = self._pool.acquire_cached(hashes)
            chain.block_ids += found
            chain.num_published = full + len(found)
            chain.num_computed = chain.num_published * size

    def make_room(self, chain: Chain, num_tokens: int, beside: Iterable[Chain]) -> bool:
        """Blocks of the chain's own for its next `num_tokens` tokens; False if even evicting every chain not in
        `beside` leaves too few."""
        pool = self._pool
        first = chain.num_computed // pool.block_size
        total = pool.blocks_for(chain.num_computed + num_tokens)
        while True:
            is_shared = first < len(chain.block_ids) and not pool.is_private(chain.block_ids[first])
            missing = total - len(chain.block_ids) + is_shared
            if missing <= pool.num_available:
                break
            if not self._evict_one({id(chain), *map(id, beside)}):
                return False
        if is_shared:
            own, shared = pool.allocate(1)[0], chain.block_ids[first]
            self._copy_block(shared, own)
            chain.block_ids[first] = own
            chain.num_published = min(chain.num_published, first)
            pool.release([shared])
        chain.block_ids += pool.allocate(max(0, total - len(chain.block_ids)))
        return True

    def check_integrity(self) -> None:
        """Asserts that blocks and chains agree."""
        self._pool.check_integrity(chain.block_ids for chain in self._open.values())
        for chain in self._open.values():
            assert chain.num_computed < len(chain.token_ids), "the last token's logits were lost"
            assert self._pool.blocks_for(chain.num_computed) <= len(chain.block_ids), "computed tokens without a block"

    def _truncate(self, chain: Chain, num_tokens: int) -> None:
        """Forgets what was computed beyond `num_tokens`."""
        chain.num_computed = min(chain.num_computed, num_tokens)
        kept = self._pool.blocks_for(chain.num_computed)
        self._pool.release(chain.block_ids[kept:])
        del chain.block_ids[kept:]
        chain.num_published = min(chain.num_published, chain.num_computed // self._pool.block_size)

    def _evict_one(self, spared: set[int]) -> bool:
        victims = [chain for key, chain in self._open.items() if chain.block_ids and key not in spared]
        if not victims:
            return False
        self._drop(min(victims, key=lambda chain: chain.last_used))
        return True

    def _drop(self, chain: Chain) -> None:
        self._pool.release(chain.block_ids)
        chain.block_ids = []
        chain.num_computed = chain.num_published = 0


def common_prefix(left: list[int], right: list[int]) -> int:
    """Length of the longest common prefix. Compares slices, which lists do without running Python code."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
