"""Which snippets help most: one pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from zenray.context.pieces import ContextSource
from zenray.context.prompt.candidates import Candidate

_RANK_OFFSET = 60


def _source_weights() -> dict[ContextSource, float]:
    return {ContextSource.DEFINITION: 1.5, ContextSource.SNIPPET: 1.5}


@dataclass(frozen=True, slots=True)
class RankingWeights:
    """What each signal and each source counts; a source that is not named counts 1, one of 0 is never shown."""

    lexical: float = 1.0
    reach: float = 2.0
    recency: float = 0.5
    distance: float = 0.25
    given: float = 1.0
    sources: Mapping[ContextSource, float] = field(default_factory=_source_weights)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate and its score; scores compare within one request only."""

    candidate: Candidate
    score: float


def rank(candidates: Sequence[Candidate], weights: RankingWeights) -> list[Ranked]:
    """Candidates, best first, by weighted reciprocal rank fusion: each signal adds weight / (60 + rank).

    Fusing ranks needs no common scale for words, seconds and folders, and one signal gone wrong cannot drown the
    others (Cormack, Clarke and Büttcher, SIGIR 2009). Equals share a rank. Ties are broken by place, so that the
    same request gives the same prompt.
    """
    signals: list[tuple[float, Callable[[Candidate], float | None]]] = [
        (weights.lexical, lambda each: None if each.lexical is None else -each.lexical),
        (weights.reach, lambda each: each.reach),
        (weights.recency, lambda each: each.recency),
        (weights.distance, lambda each: each.distance),
        (weights.given, lambda each: each.given),
    ]
    scores = [0.0] * len(candidates)
    for weight, signal in signals:
        values = [signal(candidate) for candidate in candidates]
        ranks = {value: place for place, value in enumerate(sorted({v for v in values if v is not None}), 1)}
        for at, value in enumerate(values):
            if value is not None:
                scores[at] += weight / (_RANK_OFFSET + ranks[value])
    ranked = [
        Ranked(candidate, score * weights.sources.get(candidate.snippet.source, 1.0))
        for candidate, score in zip(candidates, scores, strict=True)
    ]
    return sorted((each for each in ranked if each.score > 0), key=_order)


def _order(ranked: Ranked) -> tuple[float, str, int, str, str]:
    snippet = ranked.candidate.snippet
    return -ranked.score, snippet.path, snippet.start_line, snippet.source.value, snippet.text
