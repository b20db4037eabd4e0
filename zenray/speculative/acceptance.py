"""What a drafter's confidence is worth here: the chance that a token of a class is accepted.

Two levels. Over the whole engine every (drafter, class) has a tally that forgets old observations. A sequence
has tallies of its own, drawn towards the engine's by a prior worth `SEQUENCE_PRIOR` observations: it starts from
what is known and follows its own text after about as many. They fade with the sequence's rounds, so a drafter
given up for one sequence is tried again in it later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

NEUTRAL_ACCEPTANCE = 0.6
"""Of a class nobody has seen: good enough to be tried when trying is cheap."""
NEUTRAL_PRIOR = 2.0
SEQUENCE_PRIOR = 4.0
"""Observations that a prior counts for."""

KEEP_PER_OBSERVATION = 1 - 1 / 64
"""The engine's tallies remember about the last 64 observed tokens of a class."""
KEEP_PER_ROUND = 0.5 ** (1 / 48)
"""A sequence's tallies lose half their weight in 48 of its rounds."""

LEAST, MOST = 0.005, 0.998
"""Estimates stay within: no evidence is proof."""

ANY_CLASS = -1
"""All classes of a drafter together: what to expect of a draft that is not made yet."""


@dataclass(slots=True)
class _Tally:
    accepted: float = 0.0
    observed: float = 0.0
    round: int = 0

    def fade(self, keep: float) -> None:
        self.accepted *= keep
        self.observed *= keep

    def add(self, is_accepted: bool) -> None:
        self.accepted += is_accepted
        self.observed += 1

    def estimate(self, prior: float, strength: float) -> float:
        return (self.accepted + strength * prior) / (self.observed + strength)


@dataclass(slots=True)
class _SequenceTallies:
    round: int = 0
    tallies: dict[tuple[str, int], _Tally] = field(default_factory=dict)


def count_matching(draft_ids: Sequence[int], committed_ids: Sequence[int]) -> int:
    """Leading draft tokens that equal what was committed."""
    count = 0
    for drafted, committed in zip(draft_ids, committed_ids, strict=False):
        if drafted != committed:
            break
        count += 1
    return count


class AcceptanceBook:
    """Estimates of acceptance, over the engine and per sequence.

    Holds at most `max_sequences` sequences, least recently recorded forgotten first.
    """

    def __init__(self, max_sequences: int = 1024) -> None:
        self._max_sequences = max_sequences
        self._engine: dict[tuple[str, int], _Tally] = {}
        self._sequences: OrderedDict[Hashable, _SequenceTallies] = OrderedDict()

    def probability(self, drafter: str, class_: int, key: Hashable = None) -> float:
        """The chance that a token of this class is accepted, given that those before it are.

        Without a sequence's `key`, or for an unknown one, it is the engine's. Never 0 or 1.
        """
        engine = self._engine.get((drafter, class_))
        known = NEUTRAL_ACCEPTANCE if engine is None else engine.estimate(NEUTRAL_ACCEPTANCE, NEUTRAL_PRIOR)
        sequence = self._sequences.get(key)
        own = None if sequence is None else sequence.tallies.get((drafter, class_))
        if sequence is not None and own is not None:
            fresh = KEEP_PER_ROUND ** (sequence.round - own.round)
            known = (own.accepted * fresh + SEQUENCE_PRIOR * known) / (own.observed * fresh + SEQUENCE_PRIOR)
        return min(MOST, max(LEAST, known))

    def survivals(self, drafter: str, classes: Iterable[int], key: Hashable = None) -> list[float]:
        """The chance that a draft of these classes is accepted up to and including each token: non-increasing."""
        probabilities: dict[int, float] = {}
        survivals, survival = [], 1.0
        for class_ in classes:
            if class_ not in probabilities:
                probabilities[class_] = self.probability(drafter, class_, key)
            survival *= probabilities[class_]
            survivals.append(survival)
        return survivals

    def record(
        self, drafter: str, classes: Sequence[int], num_accepted: int, key: Hashable, num_seen: int | None = None
    ) -> None:
        """A draft was checked: `num_accepted` leading tokens equalled the verifier's choice.

        The token behind them was rejected if the verifier chose at its place, that is among the first `num_seen`
        tokens (all of them by default). Nothing is known of those behind.
        """
        num_seen = len(classes) if num_seen is None else min(num_seen, len(classes))
        sequence = self._sequence(key)
        for index in range(min(num_accepted + 1, num_seen)):
            for class_ in (classes[index], ANY_CLASS):
                engine = self._engine.setdefault((drafter, class_), _Tally())
                engine.fade(KEEP_PER_OBSERVATION)
                engine.add(index < num_accepted)
                own = sequence.tallies.setdefault((drafter, class_), _Tally())
                own.fade(KEEP_PER_ROUND ** (sequence.round - own.round))
                own.round = sequence.round
                own.add(index < num_accepted)

    def end_round(self, key: Hashable) -> None:
        """The sequence has made a round, with a draft or without: what it knew is a little older."""
        self._sequence(key).round += 1

    def forget(self, key: Hashable) -> None:
        """The sequence is finished; what it taught the engine stays."""
        self._sequences.pop(key, None)

    def _sequence(self, key: Hashable) -> _SequenceTallies:
        sequence = self._sequences.setdefault(key, _SequenceTallies())
        self._sequences.move_to_end(key)
        if len(self._sequences) > self._max_sequences:
            self._sequences.popitem(last=False)
        return sequence
