"""What became of every function and every test: counts from records, for reports and for whoever asks why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zenray.batch.rows import ERROR, ROW_ID
from zenray.batch.unit_tests.model import SkipReason, Verdict

REJECTIONS = tuple(verdict for verdict in Verdict if verdict is not Verdict.KEPT)
"""In the order of the checks: a test that one rejects has passed those before it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One function's row in brief. Shares are None where there was nothing to measure."""

    row_id: str
    qualified_name: str
    repository: str
    path: str
    error: str | None
    runs: bool
    verdicts: Mapping[str, int]
    """Candidate tests by verdict; those that were not validated under `not_validated`."""
    rejected_texts: Mapping[tuple[str, str], int]
    """Generated texts that gave no candidate, by kind and reason."""
    num_implementations: int
    mutation_score: float | None
    line_coverage: float | None
    branch_coverage: float | None
    agreement: float | None
    num_mutants: int
    num_mutants_killed: int
    num_generated_tokens: int

    @property
    def num_kept(self) -> int:
        return self.verdicts.get(Verdict.KEPT.value, 0)

    @property
    def num_candidates(self) -> int:
        return sum(self.verdicts.values())


def outcome_of(record: Mapping[str, Any]) -> Outcome:
    """From a row of `record.SCHEMA`."""
    provenance = record["provenance"]
    return Outcome(
        row_id=record[ROW_ID],
        qualified_name=record["qualified_name"],
        repository=provenance["repository"],
        path=provenance["path"],
        error=record[ERROR],
        runs=bool(record["runs_on_reference"]),
        verdicts=Counter(test["verdict"] or NOT_VALIDATED for test in record["tests"]),
        rejected_texts=Counter((text["kind"], text["reason"]) for text in record["rejected_texts"]),
        num_implementations=len(record["implementations"]),
        num_mutants=record["num_mutants"] or 0,
        num_mutants_killed=record["num_mutants_killed"] or 0,
        num_generated_tokens=record["num_generated_tokens"],
        **{name: record[name] for name in ("mutation_score", "line_coverage", "branch_coverage", "agreement")},
    )


NOT_VALIDATED = "not_validated"
"""Of a test whose function has an error or whose module does not run."""

Funnel = tuple[tuple[str, int], ...]
"""Stages and how many came through each; no number is larger than the one before it."""


def funnel_of_functions(outcomes: Sequence[Outcome], skipped: Mapping[str, int]) -> Funnel:
    """From the functions that were looked at to those with kept tests. `skipped` counts by SkipReason."""
    copies = skipped.get(SkipReason.DUPLICATE.value, 0) + skipped.get(SkipReason.NEAR_DUPLICATE.value, 0)
    beyond = skipped.get(SkipReason.NOT_CHOSEN.value, 0)
    chosen = len(outcomes)
    whole = [outcome for outcome in outcomes if outcome.error is None]
    with_tests = [outcome for outcome in whole if outcome.num_candidates]
    running = [outcome for outcome in with_tests if outcome.runs]
    return (
        ("seen", chosen + sum(skipped.values())),
        ("worth testing", chosen + beyond + copies),
        ("no copy of another", chosen + beyond),
        ("chosen", chosen),
        ("with candidate tests", len(with_tests)),
        ("runs alone", len(running)),
        ("with kept tests", sum(outcome.num_kept > 0 for outcome in running)),
    )


def funnel_of_tests(outcomes: Sequence[Outcome]) -> Funnel:
    """From generated texts to kept tests, check by check."""
    verdicts = total(outcome.verdicts for outcome in outcomes)
    candidates = sum(verdicts.values())
    texts = sum(count for outcome in outcomes for (kind, _), count in outcome.rejected_texts.items() if kind == "test")
    left = candidates - verdicts[NOT_VALIDATED]
    stages = [("generated", candidates + texts), ("parsed, no copy", candidates), ("their function runs", left)]
    for verdict in REJECTIONS:
        left -= verdicts[verdict.value]
        stages.append((_AFTER[verdict], left))
    return tuple(stages)


_AFTER = {
    Verdict.NO_ASSERTION: "assert something",
    Verdict.FAILS_ON_REFERENCE: "pass on the reference",
    Verdict.FLAKY: "pass every time",
    Verdict.LIMIT_EXCEEDED: "stay within limits",
    Verdict.PASSES_ON_STUB: "fail on a stub",
    Verdict.ADDS_NOTHING: "add a mutant or branch",
    Verdict.REDUNDANT: "kept",
}


def rejections(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Generated tests that were not kept, by reason, most frequent first."""
    counts = total(outcome.verdicts for outcome in outcomes)
    del counts[Verdict.KEPT.value]
    for outcome in outcomes:
        for (kind, reason), count in outcome.rejected_texts.items():
            if kind == "test":
                counts[_kind_of(reason)] += count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _kind_of(reason: str) -> str:
    """A reason without what it says of one text alone: the record has that."""
    return re.sub(r"^(uses )?\S+ (is not defined$|of the module)", r"\1a name \2", reason.partition(":")[0])


def words(reason: str) -> str:
    """The value of an enum as words; any other text as it is."""
    return reason.replace("_", " ") if reason.isidentifier() else reason


def errors(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Functions by their error; its numbers and the function's name are left out, so that like ones meet."""
    texts = [
        re.sub(r"\d+", "#", outcome.error.replace(outcome.qualified_name, "…")) for outcome in outcomes if outcome.error
    ]
    return dict(sorted(Counter(texts).items()))


@dataclass(frozen=True, slots=True)
class RepositoryYield:
    """One repository's share of the output. Shares are means over its functions with kept tests."""

    repository: str
    num_functions: int
    num_with_kept: int
    num_candidates: int
    num_kept: int
    mutation_score: float | None
    line_coverage: float | None


def yields(outcomes: Sequence[Outcome]) -> tuple[RepositoryYield, ...]:
    """By repository, in alphabetical order."""
    by_name: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_name.setdefault(outcome.repository, []).append(outcome)
    return tuple(_yield(name, group) for name, group in sorted(by_name.items()))


def _yield(name: str, outcomes: Sequence[Outcome]) -> RepositoryYield:
    kept = [outcome for outcome in outcomes if outcome.num_kept]
    return RepositoryYield(
        repository=name,
        num_functions=len(outcomes),
        num_with_kept=len(kept),
        num_candidates=sum(outcome.num_candidates for outcome in outcomes),
        num_kept=sum(outcome.num_kept for outcome in outcomes),
        mutation_score=mean(outcome.mutation_score for outcome in kept),
        line_coverage=mean(outcome.line_coverage for outcome in kept),
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that were measured."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """All counts together."""
    together: Counter[str] = Counter()
    for each in counts:
        together.update(each)
    return together


def to_json(outcomes: Sequence[Outcome], skipped: Mapping[str, int]) -> dict[str, Any]:
    """The figures of a job, for scripts: `report/figures.json`."""
    kept = [outcome for outcome in outcomes if outcome.num_kept]
    return {
        "functions": [[name, count] for name, count in funnel_of_functions(outcomes, skipped)],
        "tests": [[name, count] for name, count in funnel_of_tests(outcomes)],
        "skipped": dict(sorted(skipped.items())),
        "rejected": rejections(outcomes),
        "errors": errors(outcomes),
        "repositories": [
            {name: getattr(each, name) for name in RepositoryYield.__slots__} for each in yields(outcomes)
        ],
        "num_generated_tokens": sum(outcome.num_generated_tokens for outcome in outcomes),
        "num_implementations": sum(outcome.num_implementations for outcome in outcomes),
        "mutants": {
            "killed": sum(outcome.num_mutants_killed for outcome in kept),
            "made": sum(outcome.num_mutants for outcome in kept),
        },
        "means": {
            name: mean(getattr(outcome, name) for outcome in kept)
            for name in ("mutation_score", "line_coverage", "branch_coverage", "agreement")
        },
    }
