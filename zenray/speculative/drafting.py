"""One sequence of a pool replica: what is guessed of it, and which tokens to draft next.

The guesses form a tree: the draft's own continuation, and branches with its second choice at the tokens it was
least sure of, so that whatever the verifier's next round accepts and whichever bonus token it adds, a draft is
likely waiting. The tree grows where the verifier most likely goes.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from zenray.engine.request import Sampling
from zenray.engine.speculation import NUM_CLASSES
from zenray.speculative.acceptance import AcceptanceBook
from zenray.speculative.chains import Chain, common_prefix
from zenray.speculative.draft_model import DraftModel, Guess

MAX_ROWS = 6
"""Chains in one forward."""
MAX_BRANCHES = 8
"""Chains of one sequence: they hold blocks of the draft model's cache."""
ROW_COST = 0.05
"""What one more chain adds to a forward, as a part of a forward of one (0.5B int4, measured: 6 chains 1.25 times)."""
MIN_SURVIVAL = 0.05
"""Guesses less likely than this to be reached are not worth the electricity."""
_FIRST, _SECOND = "first", "second"

Key = Hashable
"""Names a sequence; the caller's own, so several verifiers may be served."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A sequence to draft for: its committed tokens, of which `num_prompt` are prompt, and how it samples."""

    token_ids: tuple[int, ...]
    num_prompt: int
    sampling: Sampling
    seed: int
    max_draft_tokens: int


@dataclass(frozen=True, slots=True)
class Drafted:
    """A path of guesses behind the first `base_length` tokens, its newest token `token_ms` in the making."""

    key: Key
    base_length: int
    token_ids: tuple[int, ...]
    classes: tuple[int, ...]
    token_ms: float


@dataclass(frozen=True, slots=True)
class Step:
    """A guessed token: the draft's first choice at its place, or its second one. `confidence` is the class of the
    first. `second` is the second, while this is the first; None also where top-k and top-p leave only one."""

    token_id: int
    confidence: int
    second: int | None = None
    is_first: bool = True


@dataclass(eq=False, slots=True)
class Branch:
    """A chain whose tokens behind the committed ones are `path`. `untried` are the places of the path where a
    branch with the second choice could leave."""

    chain: Chain
    path: list[Step] = field(default_factory=list)
    untried: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Work:
    """One more token behind a branch, or behind its first `place` tokens and the second choice there."""

    survival: float
    drafting: Drafting
    branch: Branch
    place: int | None = None


class Drafting:
    """One sequence. `book` learns from every verifier how often first and second choices of a class are right."""

    def __init__(self, key: Key, opening: Opening, model: DraftModel, book: AcceptanceBook, now_s: float) -> None:
        self.key = key
        self.committed = list(opening.token_ids)
        self.max_draft_tokens = opening.max_draft_tokens
        self._model, self._book = model, book
        chain = model.open(opening.token_ids, opening.sampling, opening.seed, opening.num_prompt)
        self.branches = [Branch(chain)]  # The first always exists and is the draft's own choice.
        self.begun_s = now_s  # When the next token could be begun.
        self.fits = True
        self._estimate()

    def commit(self, token_ids: list[int]) -> None:
        """Keeps the branches the verifier went along and goes on from the nearest one when there is none."""
        self._learn(token_ids)
        base, count = len(self.committed), len(token_ids)
        self.committed += token_ids
        self.fits = True  # Others may have ended meanwhile.
        kept = [branch for branch in self.branches if branch.chain.token_ids[base : base + count] == token_ids]
        for branch in kept:
            branch.path = branch.path[count:]
            branch.untried = [place - count for place in branch.untried if place >= count]
        if not kept:
            nearest = max(self.branches, key=lambda branch: common_prefix(branch.chain.token_ids[base:], token_ids))
            self._model.sync(nearest.chain, self.committed)
            kept = [Branch(nearest.chain)]
        staying = {id(branch.chain) for branch in kept}
        for branch in self.branches:
            if id(branch.chain) not in staying:
                self._model.close(branch.chain)
        self.branches = kept

    @property
    def num_unread(self) -> int:
        """Tokens to be read before drafting can go on; the last one is read by drafting itself."""
        return self.branches[0].chain.num_pending - 1

    def work(self) -> Iterator[Work]:
        """Everything that could be drafted next and is worth it."""
        if not self.fits:
            return
        can_branch = len(self.branches) < MAX_BRANCHES
        for branch in self.branches:
            survivals = list(itertools.accumulate(map(self._chance, branch.path), operator.mul, initial=1.0))
            if len(branch.path) < self.max_draft_tokens and survivals[-1] >= MIN_SURVIVAL:
                yield Work(survivals[-1], self, branch)
            for place in branch.untried if can_branch else ():
                survival = survivals[place] * self._second_chances[branch.path[place].confidence]
                if survival >= MIN_SURVIVAL and place + 1 < self.max_draft_tokens:
                    yield Work(survival, self, branch, place)

    def begin(self, work: Work) -> Branch | None:
        """The branch to extend for a piece of work; None when there are enough."""
        if work.place is None:
            return work.branch
        if len(self.branches) >= MAX_BRANCHES:
            return None
        first = work.branch.path[work.place]
        assert first.second is not None
        path = [*work.branch.path[: work.place], Step(first.second, first.confidence, is_first=False)]
        chain = self._model.fork(work.branch.chain, [*self.committed, *(step.token_id for step in path)])
        work.branch.untried.remove(work.place)
        self.branches.append(Branch(chain, path))
        return self.branches[-1]

    def extended(self, branch: Branch, guess: Guess | None) -> None:
        """Books the outcome of a forward. A sequence without room for its first branch rests until a commit."""
        if guess is not None:
            if guess.runners_up:
                branch.untried.append(len(branch.path))
            branch.path.append(Step(guess.token_id, guess.confidence, next(iter(guess.runners_up), None)))
        elif branch is self.branches[0]:
            self.fits = False
        else:
            self._model.close(branch.chain)
            self.branches.remove(branch)

    def drafted(self, branch: Branch, now_s: float) -> Drafted:
        return Drafted(
            self.key,
            len(self.committed),
            tuple(step.token_id for step in branch.path),
            # A second choice is of the lowest class: it is never better than the first at its place.
            tuple(step.confidence if step.is_first else 0 for step in branch.path),
            (now_s - self.begun_s) * 1000,
        )

    def close(self) -> None:
        """Leaves what was committed in the prefix cache, for the session's next request."""
        self._book.forget(self.key)
        self._model.sync(self.branches[0].chain, self.committed)
        for branch in self.branches:
            self._model.close(branch.chain)

    def _chance(self, step: Step) -> float:
        return (self._first_chances if step.is_first else self._second_chances)[step.confidence]

    def _learn(self, token_ids: list[int]) -> None:
        for step, token_id in zip(self.branches[0].path, token_ids, strict=False):
            if not step.is_first:
                break
            is_right = step.token_id == token_id
            self._book.record(_FIRST, [step.confidence], int(is_right), self.key)
            if not is_right:
                self._book.record(_SECOND, [step.confidence], int(step.second == token_id), self.key)
                break
        self._book.end_round(self.key)
        self._estimate()

    def _estimate(self) -> None:
        """The chance of each class's first choice, and of its second, which needs the first to be wrong."""
        classes = range(NUM_CLASSES)
        first = self._first_chances = [self._book.probability(_FIRST, each, self.key) for each in classes]
        second = [self._book.probability(_SECOND, each, self.key) for each in classes]
        self._second_chances = [(1 - p) * q for p, q in zip(first, second, strict=True)]


def choose_work(candidates: Iterable[Work]) -> list[Work]:
    """The next forward's rows, likeliest first; among equals the sequence with the shortest draft.

    Rule: a row joins while it raises the expected number of useful tokens per time, where n rows take
    1 + ROW_COST (n - 1).
    """
    chosen: list[Work] = []
    total = 0.0
    for work in sorted(candidates, key=lambda work: (-work.survival, len(work.branch.path))):
        cost = 1 + ROW_COST * (len(chosen) - 1)
        if len(chosen) == MAX_ROWS or (chosen and work.survival * cost <= total * ROW_COST):
            break
        chosen.append(work)
        total += work.survival
    return chosen
