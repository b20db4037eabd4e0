"""How many sequences jobs keep at the verifiers, against simulated engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.client.limit import FIRST_LIMIT, ReplicaLoad, after_refusal, next_limit, wanted_waiting

LOADS = st.builds(ReplicaLoad, st.integers(0, 300), st.integers(0, 300), st.integers(1, 300))


@dataclass
class Engine:
    """Sequences by the client they belong to; `places` run, the others wait."""

    places: int
    max_waiting: int
    sequences: list[int] = field(default_factory=list)

    @property
    def load(self) -> ReplicaLoad:
        running = min(self.places, len(self.sequences))
        return ReplicaLoad(running, len(self.sequences) - running, self.max_waiting)


class Jobs:
    """Clients with endless work, in groups that are sent together, that look at the load one after the other, while
    sequences end."""

    def __init__(self, engines: list[Engine], num_clients: int, random: Random, group: int = 1) -> None:
        self._engines, self._random, self._group = engines, random, group
        self.limits = [FIRST_LIMIT] * num_clients

    def in_flight(self, client: int) -> int:
        return sum(engine.sequences.count(client) for engine in self._engines)

    def look(self) -> None:
        for engine in self._engines:
            ended = {index for index in range(engine.load.running) if self._random.random() < 0.1}
            engine.sequences = [each for index, each in enumerate(engine.sequences) if index not in ended]
        clients = self._random.sample(range(len(self.limits)), len(self.limits))
        for client in clients:
            self._send(client)
        for client in clients:
            loads = [engine.load for engine in self._engines]
            self.limits[client] = next_limit(self.limits[client], self.in_flight(client), loads)
            self._send(client)

    def _send(self, client: int) -> None:
        while self.in_flight(client) < self.limits[client]:
            emptiest = min(self._engines, key=lambda engine: len(engine.sequences))
            emptiest.sequences += [client] * self._group


@settings(deadline=None)
@given(
    places=st.integers(1, 64),
    num_engines=st.integers(1, 4),
    max_waiting=st.integers(16, 256),
    num_clients=st.integers(1, 4),
    group=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_every_place_is_taken_and_few_sequences_wait(
    places: int, num_engines: int, max_waiting: int, num_clients: int, group: int, seed: int
) -> None:
    engines = [Engine(places, max_waiting) for _ in range(num_engines)]
    jobs = Jobs(engines, num_clients, Random(seed), group)
    for look in range(120):
        jobs.look()
        for engine in engines:
            assert engine.load.waiting <= wanted_waiting(engine.load) + 2 * num_clients * group
            if look >= 100:
                assert engine.load.running + group - 1 >= 0.9 * engine.places


@settings(deadline=None, max_examples=20)
@given(st.integers(8, 64), st.integers(0, 2**32))
def test_jobs_come_to_similar_shares(places: int, seed: int) -> None:
    """A job that starts beside one that has everything gets its part."""
    engine = Engine(places, 64, [0] * (places + 2))
    jobs = Jobs([engine], 2, Random(seed))
    jobs.limits[0] = places + 2
    late = [0, 0]
    for look in range(300):
        jobs.look()
        if look >= 200:
            late = [late[client] + jobs.in_flight(client) for client in range(2)]
    assert max(late) <= 3 * min(late)


@given(st.integers(1, 500), st.integers(0, 500), st.lists(LOADS, max_size=4))
def test_a_limit_lets_something_through_and_follows_what_is_used(
    limit: int, in_flight: int, loads: list[ReplicaLoad]
) -> None:
    new = next_limit(limit, in_flight, loads)
    assert new >= 1
    if not loads:
        assert new == limit
    else:
        assert new <= in_flight + max(1, sum(map(wanted_waiting, loads)))


@given(st.integers(1, 500), st.lists(LOADS, min_size=1, max_size=4), st.integers(1, 50))
def test_what_editors_send_is_left_to_them(in_flight: int, loads: list[ReplicaLoad], more: int) -> None:
    """The more is there, the less a job adds."""
    busier = [ReplicaLoad(load.running, load.waiting + more, load.max_waiting) for load in loads]
    assert next_limit(1, in_flight, busier) <= next_limit(1, in_flight, loads)


@given(LOADS)
def test_jobs_want_a_part_of_the_queue_at_most(load: ReplicaLoad) -> None:
    assert 1 <= wanted_waiting(load) <= max(1, load.max_waiting // 4)


@given(st.integers(1, 500))
def test_a_refusal_halves(limit: int) -> None:
    assert after_refusal(limit) == max(1, limit // 2)
