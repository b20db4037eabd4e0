"""A memory with an upper bound, for what can be computed again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key, least recently used forgotten first, of at most `max_size` in all. May be used by many threads."""

    def __init__(self, max_size: int, size: Callable[[K], int] = lambda _: 1) -> None:
        self._max_size, self._size_of = max_size, size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> None:
        """Keep `value`. One larger than the whole cache is not kept."""
        size = self._size_of(key)
        with self._lock:
            if key in self._values:
                self._values[key] = value
                self._values.move_to_end(key)
                return
            if size > self._max_size:
                return
            self._values[key] = value
            self._size += size
            while self._size > self._max_size:
                forgotten, _ = self._values.popitem(last=False)
                self._size -= self._size_of(forgotten)

    def get_or_make(self, key: K, make: Callable[[K], V]) -> V:
        """The value of `key`. Two threads that miss it at once make it twice, which does no harm."""
        found = self.get(key)
        if found is None:
            found = make(key)
            self.put(key, found)
        return found

    def __len__(self) -> int:
        return len(self._values)
