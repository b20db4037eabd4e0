"""A memory with an upper bound, for what can be computed again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from zenray.context.sized_lru import SizedLru

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key, least recently used forgotten first, of at most `max_size` in all. May be used by many threads."""

    def __init__(self, max_size: int, size: Callable[[K], int] = lambda _: 1) -> None:
        self._max_size, self._size_of = max_size, size
        self._items: SizedLru[K, V] = SizedLru()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.touch(key)
            return found

    def put(self, key: K, value: V) -> None:
        """Keep `value`. One larger than the whole cache is not kept."""
        size = self._size_of(key)
        if size > self._max_size:
            return
        with self._lock:
            self._items.put(key, value, size)
            while self._items.size > self._max_size:
                self._items.forget(self._items.oldest())

    def get_or_make(self, key: K, make: Callable[[K], V]) -> V:
        """The value of `key`. Two threads that miss it at once make it twice, which does no harm."""
        found = self.get(key)
        if found is None:
            found = make(key)
            self.put(key, found)
        return found

    def __len__(self) -> int:
        return len(self._items)
