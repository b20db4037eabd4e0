"""Snippets that may enter a prompt, with what is known about them, and how well their words fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zenray.context.pieces import Snippet
from zenray.context.prompt.words import count_identifiers, terms_of

_FEW = 64
_K1, _B = 1.2, 0.75  # The usual parameters of BM25; see Robertson and Zaragoza (2009), section 3.


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snippet and what speaks for it. `None` where a signal says nothing about it."""

    snippet: Snippet
    lexical: float | None = None
    """BM25 of its words for those around the cursor, above 0."""
    reach: int | None = None
    """0 where it defines the name nearest to the cursor, 1 for the next name, and so on."""
    recency: float | None = None
    """Seconds since somebody touched or looked at it; of files, how many were used since."""
    distance: int | None = None
    """Folders between its file and the current one."""
    given: int | None = None
    """Its place in the order of who gave it: the client or the index."""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same snippet in a later request, wherever its lines have moved."""
        return self.snippet.path, self.snippet.text


@dataclass(frozen=True, slots=True)
class WordIndex:
    """Snippets and where their words are: built once for texts that stay."""

    snippets: tuple[Snippet, ...]
    lengths: tuple[int, ...]
    postings: Mapping[str, list[int]] = field(repr=False)
    """Of each identifier: number of a snippet, how often that holds it, the next number, and so on."""
    identifiers: Mapping[str, list[str]] = field(repr=False)
    """Of each term: the identifiers it is part of."""
    _counted: dict[str, dict[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def occurrences(self, term: str) -> dict[int, int]:
        """How often each snippet that holds `term` holds it. Kept: the next keystroke asks for the same terms."""
        found = self._counted.get(term)
        if found is not None:
            return found
        found = {}
        for identifier in self.identifiers.get(term, ()):
            flat = self.postings[identifier]
            for at in range(0, len(flat), 2):
                found[flat[at]] = found.get(flat[at], 0) + flat[at + 1]
        self._counted[term] = found
        return found


def index_words(snippets: Sequence[Snippet]) -> WordIndex:
    """The words of `snippets`."""
    postings: dict[str, list[int]] = {}
    lengths = []
    for number, snippet in enumerate(snippets):
        counts = count_identifiers(snippet.text)
        lengths.append(sum(counts.values()))
        for identifier, count in counts.items():
            postings.setdefault(identifier, []).extend((number, count))
    identifiers: dict[str, list[str]] = {}
    for identifier in postings:
        for term in terms_of(identifier):
            identifiers.setdefault(term, []).append(identifier)
    return WordIndex(tuple(snippets), tuple(lengths), postings, identifiers)


def bm25(query: Mapping[str, float], indexes: Sequence[WordIndex]) -> list[list[float]]:
    """BM25 of each snippet of each index for the weighted terms of `query`, as one collection.

    A term in more than a quarter of a large collection tells nothing apart and is skipped.
    """
    num_snippets = sum(len(index.snippets) for index in indexes)
    scores = [[0.0] * len(index.snippets) for index in indexes]
    if num_snippets == 0:
        return scores
    average = max(1.0, sum(sum(index.lengths) for index in indexes) / num_snippets)
    norms = [[_K1 * (1 - _B + _B * length / average) for length in index.lengths] for index in indexes]
    for term, weight in query.items():
        found = [(at, index.occurrences(term)) for at, index in enumerate(indexes) if term in index.identifiers]
        frequency = sum(len(counts) for _, counts in found)
        if frequency == 0 or frequency > max(_FEW, num_snippets // 4):
            continue
        gain = weight * (_K1 + 1) * math.log(1 + (num_snippets - frequency + 0.5) / (frequency + 0.5))
        for at, counts in found:
            row, norm = scores[at], norms[at]
            for number, count in counts.items():
                row[number] += gain * count / (count + norm[number])
    return scores
