"""What a run of the unit-test job gave and how its tests fared when looked at again, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from zenray.batch.unit_tests.results.funnel import words

_MOST_REASONS = 8


def unit_tests_markdown(report: dict[str, Any]) -> str:
    """A report of benchmarks/generate_tests.py. Its `figures` are the output's own, `recheck` those of another look."""
    machine, run, figures = report["machine"], report["run"], report["figures"]
    functions, tests = figures["functions"], figures["tests"]
    kept, chosen = tests[-1][1], dict(functions)["chosen"]
    lines = [
        f"Measured {report['created'][:10]} on {machine['processor']}, {machine['cores']} cores: {chosen} functions of "
        f"{_together(row['repository'] for row in figures['repositories'])}, asked of {report['model']['name']} "
        f"({report['model']['weight_format']}). {functions[-1][1]} of them have kept tests, {kept} in all.",
        "",
        *_table(("functions", "", "of those before"), _with_shares(functions)),
        "",
        *_table(("tests", "", "of those before"), _with_shares(tests)),
        "",
        *_repositories(figures["repositories"]),
        "",
        f"Means over functions with kept tests: {_means(figures['means'])}. "
        f"Together their tests kill {figures['mutants']['killed']:,} of {figures['mutants']['made']:,} mutants. "
        f"Most frequent reasons to reject a test: {_reasons(figures['rejected'])}.",
        "",
        f"The job took {run['elapsed_s'] / 60:.0f} minutes, generating and validating on the same cores: "
        f"{run['tokens']:,} tokens generated, {run['tokens'] / run['elapsed_s']:.0f} tokens/s, "
        f"{run['tokens'] / max(kept, 1):,.0f} tokens per kept test.",
        "",
        *_recheck(report["recheck"]),
    ]
    return "\n".join(lines)


def _repositories(rows: Sequence[dict[str, Any]]) -> list[str]:
    names = ("repository", "functions", "with kept tests", "candidates", "kept", "mutation score", "lines covered")
    counts = ("num_functions", "num_with_kept", "num_candidates", "num_kept")
    scores = ("mutation_score", "line_coverage")
    return _table(
        names,
        [(row["repository"], *(row[name] for name in counts), *(_score(row[name]) for name in scores)) for row in rows],
    )


def _recheck(told: dict[str, Any]) -> list[str]:
    lines = [
        f"Looked at again: {told['tests_passed']} of {told['tests']} kept tests pass under plain pytest, a fresh "
        f"process per function. {told['sampled_agreeing']} of {told['sampled']} functions whose scores were measured "
        "again, each mutant in a pytest of its own and coverage by `coverage run --branch`, agree with their record:",
        "",
        *_table(
            ("together", "recorded", "found"),
            [(figure["name"], f"{figure['recorded']:,}", f"{figure['found']:,}") for figure in told["figures"]],
        ),
    ]
    if told["problems"]:
        lines += ["", "What differs:", "", *(f"- {problem}" for problem in told["problems"])]
    return lines


def _with_shares(funnel: Sequence[Sequence[Any]]) -> list[tuple[str, str, str]]:
    before = [None, *(count for _, count in funnel[:-1])]
    return [
        (name, f"{count:,}", f"{count / above:.0%}" if above else "")
        for (name, count), above in zip(funnel, before, strict=True)
    ]


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return [
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def _means(means: dict[str, float | None]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_score(value)}" for name, value in means.items())


def _reasons(rejected: dict[str, int]) -> str:
    most = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
    return ", ".join(f"{words(name)} ({count:,})" for name, count in most)


def _together(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
