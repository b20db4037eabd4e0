"""What speculation is worth: the same prompts decoded plainly and with drafters, in turns, on one engine.

Each prompt is first decoded plainly and untimed, which puts it into the prefix cache and gives the tokens that
everybody has to reproduce. A turn then times plain decoding, every side, and plain decoding again; a side is
judged by the plain runs around it, so that a machine that changes its pace cancels out. The order of the sides
turns with every prompt. A side keeps its drafters through one repeat, as a server would, and sees each prompt
once in it: nothing is drafted from a former answer to the same prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from zenray.bench.speculative_prompts import SpeculativePrompt
from zenray.engine.noise import gumbel
from zenray.engine.request import Delta, Final, GenerateRequest, Limits, Sampling, Usage
from zenray.errors import ZenrayError
from zenray.speculative.warm_up import warm_up

if TYPE_CHECKING:
    from zenray.engine.engine import Engine
    from zenray.engine.request import DrafterLoad
    from zenray.engine.sequence import Sequence
    from zenray.engine.speculation import Round, Speculator

Gamma = Literal["auto"] | int

_NUM_TOP_SAMPLED = 20
"""Alternatives looked at for the margin of a sampled token: noise rarely lifts one from further down."""


@dataclass(frozen=True, slots=True)
class Side:
    """One way to draft. No drafters is plain decoding. `starts_cold`: no prompt is spent on warming up."""

    drafters: tuple[str, ...] = ()
    gamma: Gamma = "auto"
    starts_cold: bool = False

    @property
    def label(self) -> str:
        return f"{'+'.join(self.drafters)}, gamma {self.gamma}" if self.drafters else "plain"


PLAIN = Side()


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """One verified step: tokens it computed, tokens it committed, and where its milliseconds went."""

    num_draft: int
    num_committed: int
    draft_ms: float
    verify_ms: float
    learn_ms: float


@dataclass(frozen=True, slots=True)
class Reference:
    """Plain decoding's tokens, and by how much each was ahead of the next best one (in units of log p)."""

    token_ids: tuple[int, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One timed completion. `num_tokens` came in `decode_s` after the first event that carried tokens."""

    side: Side
    prompt: SpeculativePrompt
    repeat: int
    token_ids: tuple[int, ...]
    num_tokens: int
    decode_s: float
    usage: Usage
    rounds: tuple[RoundTimes, ...] = ()

    @property
    def tokens_per_s(self) -> float | None:
        return self.num_tokens / self.decode_s if self.num_tokens and self.decode_s > 0 else None


@dataclass(slots=True)
class MeteredSpeculator:
    """Passes everything on to a speculator and notes what each step with one sequence cost."""

    inner: Speculator
    rounds: list[RoundTimes] = field(default_factory=list)
    _draft_ms: float = 0.0

    def opened(self, sequence: Sequence) -> None:
        self.inner.opened(sequence)

    def propose(self, sequences: Ordered[Sequence], room: int) -> None:
        start_s = time.perf_counter()
        self.inner.propose(sequences, room)
        self._draft_ms = (time.perf_counter() - start_s) * 1e3

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor, step_ms: float, is_pure_decode: bool) -> None:
        start_s = time.perf_counter()
        self.inner.observe(rounds, logits_RV, step_ms, is_pure_decode)
        learn_ms = (time.perf_counter() - start_s) * 1e3
        if is_pure_decode and len(rounds) == 1:
            (only,) = rounds
            num_draft = 0 if only.draft is None else len(only.draft.token_ids)
            self.rounds.append(RoundTimes(num_draft, only.num_committed, self._draft_ms, step_ms, learn_ms))

    def closed(self, sequence: Sequence) -> None:
        self.inner.closed(sequence)

    def load(self) -> tuple[DrafterLoad, ...]:
        return self.inner.load()

    def shutdown(self) -> None:
        self.inner.shutdown()


@dataclass(frozen=True, slots=True)
class SpeculativeMeasurement:
    """All timed runs in the order they were made, and what they have to agree with by prompt."""

    runs: tuple[Run, ...]
    references: dict[SpeculativePrompt, Reference]


def measure_speculation(
    engine: Engine,
    sides: Ordered[Side],
    prompts: Ordered[SpeculativePrompt],
    make_speculator: Callable[[Side], Speculator],
    repeats: int = 1,
    sampling: Sampling | None = None,
    advance: Callable[[str], None] = lambda what: None,
) -> SpeculativeMeasurement:
    """Times every side on every prompt, `repeats` times. The engine is idle and has no speculator.

    The first of `prompts` only warms up the sides that do not start cold. `make_speculator` is called for every side
    and repeat. `advance` is called with what comes next, once per prompt and once per turn: `num_turns` in all.
    Raises ZenrayError for an engine that is at work.
    """
    if engine.has_work or engine.speculator is not None:
        raise ZenrayError("a speculative benchmark needs an idle engine without a speculator")
    sampling = sampling or Sampling()
    first, *measured = prompts
    references: dict[SpeculativePrompt, Reference] = {}
    for prompt in measured:
        advance(f"{prompt.kind}: plain decoding, to compare with")
        references[prompt] = _reference(engine, prompt, sampling)
    runs: list[Run] = []
    for repeat in range(repeats):
        speculators = {side: MeteredSpeculator(make_speculator(side)) for side in sides}
        try:
            for side, speculator in speculators.items():
                if side.starts_cold:
                    continue
                if "draft_model" in side.drafters:  # as a server does before its first request
                    engine.speculator = speculator
                    warm_up(engine)
                _timed(engine, PLAIN, first, repeat, sampling, speculator)
            for turn, prompt in enumerate(measured):
                advance(f"{prompt.kind} {turn + 1} of {len(measured)}, repeat {repeat + 1} of {repeats}")
                runs += _turn(engine, _rotated(sides, turn), speculators, prompt, repeat, sampling)
        finally:
            for speculator in speculators.values():
                speculator.shutdown()
    return SpeculativeMeasurement(tuple(runs), references)


def num_turns(num_prompts: int, repeats: int) -> int:
    """Calls of `advance` by `measure_speculation` for so many prompts besides the first."""
    return num_prompts * (1 + repeats)


def _turn(
    engine: Engine,
    sides: Ordered[Side],
    speculators: dict[Side, MeteredSpeculator],
    prompt: SpeculativePrompt,
    repeat: int,
    sampling: Sampling,
) -> Iterator[Run]:
    yield _timed(engine, PLAIN, prompt, repeat, sampling, None)
    for side in sides:
        yield _timed(engine, side, prompt, repeat, sampling, speculators[side])
    yield _timed(engine, PLAIN, prompt, repeat, sampling, None)


def _rotated(sides: Ordered[Side], turn: int) -> list[Side]:
    first = turn % len(sides) if sides else 0
    return [*sides[first:], *sides[:first]]


def _timed(
    engine: Engine,
    side: Side,
    prompt: SpeculativePrompt,
    repeat: int,
    sampling: Sampling,
    speculator: MeteredSpeculator | None,
) -> Run:
    num_before = 0 if speculator is None else len(speculator.rounds)
    engine.speculator = speculator
    try:
        times_s: list[float] = []
        counts: list[int] = []
        token_ids: list[int] = []
        usage = Usage(0, 0, 0)
        for event, at_s in _events(engine, prompt, sampling):
            if isinstance(event, Delta) and event.token_ids:
                times_s.append(at_s)
                counts.append(len(event.token_ids))
                token_ids += event.token_ids
            elif isinstance(event, Final):
                usage = event.usage
    finally:
        engine.speculator = None
    return Run(
        side=side,
        prompt=prompt,
        repeat=repeat,
        token_ids=tuple(token_ids),
        num_tokens=sum(counts[1:]),
        decode_s=times_s[-1] - times_s[0] if times_s else 0.0,
        usage=usage,
        rounds=() if speculator is None else tuple(speculator.rounds[num_before:]),
    )


def _reference(engine: Engine, prompt: SpeculativePrompt, sampling: Sampling) -> Reference:
    num_top = 2 if sampling.temperature == 0 else _NUM_TOP_SAMPLED
    asked = Sampling(temperature=sampling.temperature, seed=sampling.seed, logprobs=num_top)
    token_ids: list[int] = []
    margins: list[float] = []
    for event, _ in _events(engine, prompt, asked):
        if isinstance(event, Delta):
            for entry in event.logprobs:
                assert entry.logprob is not None
                candidates = dict((*entry.top, (entry.token_id, entry.logprob)))
                position = len(prompt.token_ids) + len(margins)
                margins.append(_margin(candidates, entry.token_id, sampling, position))
            token_ids += event.token_ids
    return Reference(tuple(token_ids), tuple(margins))


def _margin(candidates: dict[int, float], chosen: int, sampling: Sampling, position: int) -> float:
    """How far the chosen token was ahead of the best other candidate when the choice was made."""
    ids, logprobs = list(candidates), torch.tensor(list(candidates.values()), dtype=torch.float64)
    if sampling.temperature > 0:
        assert sampling.seed is not None
        logprobs = logprobs + sampling.temperature * gumbel(sampling.seed, position, torch.tensor(ids))
    scores: dict[int, float] = dict(zip(ids, logprobs.tolist(), strict=True))
    return scores.pop(chosen) - max(scores.values())


def _events(engine: Engine, prompt: SpeculativePrompt, sampling: Sampling) -> Iterator[tuple[Any, float]]:
    """The events of one completion with the second their step ended."""
    limits = Limits(max_tokens=prompt.max_tokens)
    engine.add(GenerateRequest(prompt.name, prompt.token_ids, sampling, limits))
    while engine.has_work:
        events = engine.step()
        now_s = time.perf_counter()
        for _, event in events:
            yield event, now_s
