"""Gaps are the same every time and true; measures say what they claim; a whole run ends in a report."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.sandbox import SandboxPool, SandboxUnavailable
from zenray.bench import infilling_cross_file
from zenray.bench.document import update_document
from zenray.bench.infilling import ROW_KEYS, InfillingPlan, run_infilling_bench
from zenray.bench.infilling_gap import GAP_KINDS, Gap, GapKind
from zenray.bench.infilling_measures import (
    Filling,
    edit_similarity,
    identifier_f1,
    is_exact,
    parses_no_worse,
    run_tests,
    summarise_fillings,
)
from zenray.bench.infilling_run import TREATMENTS, Task, fill_gaps
from zenray.bench.infilling_tables import infilling_markdown, infilling_tables
from zenray.bench.infilling_tasks import make_gaps
from zenray.bench.report import merge_rows
from zenray.context.budget import PromptLimits
from zenray.context.suggestion.stops import make_text_rule
from zenray.engine.engine import Engine
from zenray.errors import ConfigError

GAP = Gap("library line", "x", "x.py", "def f(a):\n    return ", "a + 1", "\n\n\nf(2)\n")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxPool]:
    try:
        with SandboxPool(1) as pool:
            yield pool
    except SandboxUnavailable as reason:
        pytest.skip(f"no sandbox here: {reason}")


@pytest.fixture(scope="module", autouse=True)
def small_packages() -> Any:
    """Gaps across files of three packages rather than eight: those are quick to read."""
    packages = infilling_cross_file.PACKAGES
    infilling_cross_file.PACKAGES = ("fastapi", "pydantic", "huggingface_hub")
    yield
    infilling_cross_file.PACKAGES = packages


@pytest.mark.parametrize("kind", GAP_KINDS)
def test_gaps_are_different_and_the_same_every_time(kind: GapKind) -> None:
    gaps = make_gaps(kind, 6)
    assert len({gap.name for gap in gaps}) == 6
    assert gaps == make_gaps(kind, 6) and gaps[:4] == make_gaps(kind, 4)
    assert gaps != make_gaps(kind, 6, seed=1)
    for gap in gaps:
        ast.parse(gap.filled(gap.missing))
        assert gap.missing.strip()
        assert ("\n" in gap.missing) == kind.endswith("lines")


def test_more_gaps_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"only \d+ gaps of kind humaneval lines .* 165 wanted"):
        make_gaps("humaneval lines", 165)


@pytest.mark.parametrize("kind", ["humaneval line", "humaneval lines"])
def test_the_true_middle_passes_and_nothing_does_not(kind: GapKind, sandbox: SandboxPool) -> None:
    gaps = make_gaps(kind, 12)
    true = [Filling(gap, gap.missing, 1, 1, "EOS") for gap in gaps]
    empty = [Filling(gap, "", 1, 1, "EOS") for gap in gaps]
    wrong = [Filling(gap, "raise ValueError", 1, 1, "EOS") for gap in gaps]
    passed = run_tests([*true, *empty, *wrong], sandbox)
    assert all(passed[filling] for filling in true)
    assert not any(passed[filling] for filling in empty)
    assert sum(passed[filling] for filling in wrong) <= 2  # a line may be one that no test reaches


def test_a_cross_file_gap_needs_the_other_file() -> None:
    for gap in make_gaps("cross-file", 6):
        defining = [document for document in gap.documents if gap.definition in document.text]
        assert len(defining) == 1 and len(gap.documents) > 1
        head = ast.parse(defining[0].text)
        name = gap.definition.removeprefix("def ").removesuffix("(")
        function = next(node for node in head.body if isinstance(node, ast.FunctionDef) and node.name == name)
        parameters = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
        keywords = set(re.findall(r"(\w+)=", gap.missing)) & parameters
        assert keywords, "a keyword that only the definition tells"
        assert not any(keyword in gap.before + gap.after for keyword in keywords)
        assert gap.before.endswith(f"{name}(")


@settings(deadline=None)
@given(st.text(), st.text())
def test_similarity_is_one_for_equal_texts_alone(left: str, right: str) -> None:
    assert edit_similarity(left, left) == 1
    assert 0 <= edit_similarity(left, right) <= 1
    assert edit_similarity(left, right) == edit_similarity(right, left)
    assert (edit_similarity(left, right) == 1) == (left.strip() == right.strip())


@settings(deadline=None)
@given(st.lists(st.text(alphabet="abc", min_size=1), min_size=1), st.sampled_from([" ", "\n", "  \n\t"]))
def test_white_space_does_not_make_a_text_another(words: list[str], space: str) -> None:
    assert is_exact(f" {space.join(words)}\n", " ".join(words))
    assert not is_exact(" ".join([*words, "more"]), " ".join(words))


def test_identifiers_count_as_often_as_they_stand_there() -> None:
    assert identifier_f1("f(a, b=2)", "f(a, b = 3)") == 1
    assert identifier_f1("a + a", "a + b") == pytest.approx(0.5)
    assert identifier_f1("x", "y") == 0 and identifier_f1("1", "(2)") == 1


def test_a_row_counts_what_would_be_shown() -> None:
    tested = replace(GAP, test="\nassert f(2) == 3\n", definition="def f(")
    fillings = [
        Filling(tested, "a + 1", 4, 20, "EOS", has_definition=True),
        Filling(tested, "a + 1)", 6, 20, "LENGTH"),
        Filling(tested, "  ", 2, 20, "EOS"),
    ]
    assert parses_no_worse(fillings[0]) and not parses_no_worse(fillings[1])
    row = summarise_fillings(fillings, {fillings[0]: True, fillings[1]: False, fillings[2]: False})
    assert row["count"] == 3 and row["exact"] == row["passed"] == row["has_definition"] == pytest.approx(1 / 3)
    assert row["shown"] == pytest.approx(2 / 3) and row["parses_no_worse"] == 0.5
    assert row["tokens"] == 4 and row["finish_reasons"] == {"EOS": 2, "LENGTH": 1}
    without = summarise_fillings([Filling(GAP, "", 0, 20, "EOS")], {})
    assert without["passed"] is without["parses_no_worse"] is without["has_definition"] is None


def test_an_engine_fills_every_gap_in_every_treatment(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(num_blocks=512, make_text_rule=make_text_rule)
    other = Gap("cross-file", "y", "y.py", "from x import f\nf(", "2)", "\n", documents=(), definition="def f(")
    tasks = [
        Task(gap, treatment, context) for gap in (GAP, other) for treatment in TREATMENTS for context in (False, True)
    ]
    ended = []
    filled = fill_gaps(engine, PromptLimits(engine.max_sequence_tokens, 400, 0.25), tasks, lambda: ended.append(1))
    assert list(filled) == tasks and len(ended) == len(tasks)
    assert all(filling.gap is task.gap and filling.num_tokens for task, filling in filled.items())
    engine.check_integrity()


def row(**fields: Any) -> dict[str, Any]:
    filling = Filling(GAP, "a + 1", 4, 20, "EOS")
    labels = {"model": "tiny", "format": "f64", "max_prompt_tokens": 1024, "kind": "library line"}
    return {**labels, "with_context": False, "treatment": "raw", **summarise_fillings([filling], {}), **fields}


def test_rows_measured_again_take_the_place_of_old_ones() -> None:
    old = [row(exact=0.5), row(treatment="all", exact=0.6)]
    merged = merge_rows(old, [row(exact=0.7), row(model="other")], ROW_KEYS)
    assert [(each["model"], each["treatment"], each["exact"]) for each in merged] == [
        ("tiny", "raw", 0.7), ("tiny", "all", 0.6), ("other", "raw", 1.0),
    ]  # fmt: skip


def test_a_report_is_shown_and_written_into_its_block() -> None:
    report = {
        "kind": "infilling",
        "created": "2026-01-02T03:04:05+00:00",
        "machine": {"processor": "A CPU", "threads": 2},
        "prompts": {"sha256": "0123456789abcdef"},
        "settings": {"seed": 0, "functional": "bwrap is not installed"},
        "results": [row(), row(passed=0.25, model="other", with_context=True)],
    }
    markdown = infilling_markdown(report)
    assert "| library line | 1 |  | raw | 100% | 1.00 | 1.00 |  | 100% | 100% | 4 | 20 |  |" in markdown
    assert "**other f64**" in markdown and "| open files | raw |" in markdown
    assert "functional: not run (bwrap is not installed)" in markdown
    block = "<!-- infilling:begin -->\n<!-- infilling:end -->"
    assert markdown.strip() in update_document(block, report)
    assert len(infilling_tables(report)) == 4


def test_a_run_ends_in_a_report_that_a_later_run_can_add_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    run_infilling_bench("tiny", None, [], [], InfillingPlan(("humaneval line",), 2, 0), False, out)
    document = tmp_path / "page.md"
    document.write_text("# Page\n\n<!-- infilling:begin -->\n<!-- infilling:end -->\n")
    run_infilling_bench("tiny", None, [], [], InfillingPlan(("library line",), 2, 0), True, out, document)
    report = json.loads(out.read_text())
    assert infilling_markdown(report).strip() in document.read_text()
    assert [(each["kind"], each["treatment"], each["count"]) for each in report["results"]] == [
        (kind, treatment.name, 2) for kind in ("humaneval line", "library line") for treatment in TREATMENTS
    ]
    assert report["results"][0]["passed"] is not None or "not run" in capsys.readouterr().out
