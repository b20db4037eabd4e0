"""The KV block pool and its prefix cache: who holds which block, and which idle blocks can be found again.

A block is free (no content worth keeping), referenced (in at least one block table) or cached
(unreferenced, content kept under its hash until space is needed). Only committed blocks are published
under a hash: full of tokens whose keys and values are final.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from zenray.engine.request import Priority

ROOT_HASH = b"zenray"
BATCH_CACHE_SHARE = 0.25
"""Of all blocks, what batch sequences may keep cached at the cost of interactive ones. A job reads far more text in a
night than the pool holds; without a bound it would push out every prompt that an editor comes back to."""


def chain_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Hash of a block's tokens and everything before them; equal hashes mean equal prefixes."""
    return hashlib.blake2b(parent + array("I", token_ids).tobytes(), digest_size=16).digest()


class BlockPool:
    """Reference-counted blocks with least-recently-used eviction of the unreferenced cached ones.

    Blocks that only batch sequences have used go first; see `BATCH_CACHE_SHARE`.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_cache: bool = True) -> None:
        assert num_blocks > 0
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_cache = prefix_cache
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._used_by = [Priority.BATCH] * num_blocks  # the most urgent that has used the block's content
        # Cached and unreferenced, oldest first, by who used them.
        self._idle: dict[Priority, OrderedDict[int, None]] = {priority: OrderedDict() for priority in Priority}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Unreferenced blocks that still hold a findable prefix."""
        return sum(map(len, self._idle.values()))

    @property
    def num_available(self) -> int:
        """Blocks `allocate` can hand out."""
        return len(self._free) + self.num_cached

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that `num_tokens` tokens occupy."""
        return -(-num_tokens // self.block_size)

    def count_cached(self, hashes: Iterable[bytes]) -> int:
        """Length of the longest cached prefix of a hash chain, in blocks, without taking it."""
        count = 0
        for block_hash in hashes:
            if block_hash not in self._block_of:
                break
            count += 1
        return count

    def count_idle(self, hashes: Iterable[bytes]) -> int:
        """How many blocks of the longest cached prefix are unreferenced, and so counted as available."""
        count = 0
        for block_hash in hashes:
            if block_hash not in self._block_of:
                break
            count += self._references[self._block_of[block_hash]] == 0
        return count

    def acquire_cached(self, hashes: Iterable[bytes], priority: Priority = Priority.INTERACTIVE) -> list[int]:
        """Takes a reference on each block of the longest cached prefix of a hash chain."""
        taken = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            if self._references[block] == 0:
                del self._idle[self._used_by[block]][block]
            self._used_by[block] = min(self._used_by[block], priority)
            self._references[block] += 1
            taken.append(block)
        return taken

    def allocate(self, count: int, priority: Priority = Priority.INTERACTIVE) -> list[int]:
        """Takes `count` blocks for writing, evicting the least recently used cached ones if need be."""
        assert count <= self.num_available, "the scheduler asks before it allocates"
        taken = []
        for _ in range(count):
            if not self._free:
                self._evict(self._idle[self._victims(priority)], last=False)
            block = self._free.pop()
            self._references[block] = 1
            self._used_by[block] = priority
            taken.append(block)
        return taken

    def _victims(self, priority: Priority) -> Priority:
        """Whose cached blocks make room for a sequence of `priority`; there is some cached block."""
        batch, interactive = self._idle[Priority.BATCH], self._idle[Priority.INTERACTIVE]
        may_stay = priority is Priority.BATCH and len(batch) <= BATCH_CACHE_SHARE * self.num_blocks
        return Priority.INTERACTIVE if interactive and (may_stay or not batch) else Priority.BATCH

    def _evict(self, idle: OrderedDict[int, None], *, last: bool) -> None:
        block, _ = idle.popitem(last=last)
        del self._block_of[self._hash_of.pop(block)]
        self._free.append(block)

    def share(self, blocks: Iterable[int]) -> None:
        """Takes a further reference on each block of a table."""
        for block in blocks:
            assert self._references[block] > 0, "only a referenced block can be shared"
            self._references[block] += 1

    def is_private(self, block: int) -> bool:
        """Whether one table alone holds the block and nobody can find it: it may be written into."""
        return self._references[block] == 1 and block not in self._hash_of

    def publish(self, block: int, block_hash: bytes) -> None:
        """Makes a committed, full block findable. A second block with the same content stays private."""
        if self.prefix_cache and block_hash not in self._block_of and block not in self._hash_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash

    def release(self, blocks: Sequence[int]) -> None:
        """Gives back one reference of each block of a table.

        The tail goes first, so that eviction shortens a cached prefix from its end.
        """
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                if block in self._hash_of:
                    self._idle[self._used_by[block]][block] = None
                else:
                    self._free.append(block)

    def clear_cache(self) -> None:
        """Forgets every unreferenced cached block."""
        for idle in self._idle.values():
            while idle:
                self._evict(idle, last=True)

    def check_integrity(self, tables: Iterable[Sequence[int]]) -> None:
        """Asserts that references equal the tables' use and that every block is in exactly one state."""
        in_use = Counter(block for table in tables for block in table)
        for block in range(self.num_blocks):
            assert self._references[block] == in_use[block], f"block {block}: references disagree with the tables"
        free, idle = set(self._free), {block for kept in self._idle.values() for block in kept}
        assert len(free) == len(self._free), "a block is free twice"
        assert len(idle) == self.num_cached, "a block is idle twice"
        referenced = set(in_use)
        assert not free & idle and not free & referenced and not idle & referenced, "a block is in two states"
        assert len(free) + len(idle) + len(referenced) == self.num_blocks, "a block is lost"
        assert {self._block_of[h] for h in self._block_of} == set(self._hash_of), "hash maps disagree"
        assert not free & set(self._hash_of), "a free block is findable"
        assert idle <= set(self._hash_of), "an idle block cannot be found"
