"""Items of known size in order of use, and the exact sum of their sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SizedLru(Generic[K, V]):
    """Keeps what it is given until it is told to forget: the owner decides what may go. Iterates over keys, least
    recently used first."""

    def __init__(self) -> None:
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    def put(self, key: K, value: V, size: int) -> None:
        """The item becomes the most recently used one; it takes the place of an earlier one with its key."""
        self.forget(key)
        self._items[key] = (value, size)
        self._size += size

    def get(self, key: K) -> V | None:
        """Not a use."""
        item = self._items.get(key)
        return None if item is None else item[0]

    def touch(self, key: K) -> None:
        """`key`, which is there, becomes the most recently used one."""
        self._items.move_to_end(key)

    def forget(self, key: K) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._size -= item[1]

    def oldest(self) -> K:
        """The least recently used key; there has to be one."""
        return next(iter(self._items))

    def newest_values(self) -> list[V]:
        """Most recently used first."""
        return [value for value, _ in reversed(self._items.values())]

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
