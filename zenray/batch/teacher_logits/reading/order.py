"""Which stream of a training run reads which sequences of a dump, and in which order: pure functions of a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zenray.batch.teacher_logits.records.codes import uniforms

Place = tuple[int, int]
"""A shard's index and a row of it."""


def epoch_order(
    rows_of_shards: Sequence[tuple[int, int]], seed: int, epoch: int, stream: int, num_streams: int, buffer_size: int
) -> list[Place]:
    """The places that one of `num_streams` streams reads in an epoch; together they read each place exactly once.

    `rows_of_shards` has the index of every shard and its number of rows. Shards are shuffled and laid end to end, and
    each stream gets an equal run of that, to within a row; so it opens few shards that others open too. Within its
    run a stream shuffles through a buffer of `buffer_size` places (1 keeps their order).
    """
    shards = [rows_of_shards[index] for index in _shuffled(len(rows_of_shards), _key(seed, epoch, 0))]
    total = sum(num_rows for _, num_rows in shards)
    start, stop = (total * each // num_streams for each in (stream, stream + 1))
    places, begin = [], 0
    for shard, num_rows in shards:
        inside = range(max(start - begin, 0), min(stop - begin, num_rows))
        places += [(shard, row) for row in inside]
        begin += num_rows
    return _through_buffer(places, buffer_size, _key(seed, epoch, 1 + stream))


def _through_buffer(places: Sequence[Place], size: int, key: int) -> list[Place]:
    """As if each place came into a buffer and, the buffer being full, a random one of it left."""
    draws_N = uniforms(key, len(places))
    waiting, left = [], []
    for place, draw in zip(places, draws_N, strict=True):
        waiting.append(place)
        if len(waiting) == size:
            chosen = int(draw * size)
            left.append(waiting[chosen])
            waiting[chosen] = waiting[-1]
            waiting.pop()
    return left + [waiting[index] for index in _shuffled(len(waiting), key + 1)] if size > 1 else left


def _shuffled(count: int, key: int) -> list[int]:
    order: list[int] = np.argsort(uniforms(key, count), kind="stable").tolist()
    return order


def _key(seed: int, epoch: int, purpose: int) -> int:
    """Of a Philox stream (128 bits): 63 of the seed, and room for 2**32 epochs and 2**31 streams, two keys each."""
    return (seed << 64 | epoch << 32 | purpose << 1) % 2**128
