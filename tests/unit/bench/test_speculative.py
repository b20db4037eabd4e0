"""The speculative benchmark on the tiny model: drafters whose worth is known are reported with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zenray.bench.cli import app
from zenray.bench.document import update_document
from zenray.bench.plot import plot_report
from zenray.bench.report import make_report, merge_rows
from zenray.bench.speculative import (
    PLAIN,
    Reference,
    Run,
    Side,
    SpeculativeMeasurement,
    measure_speculation,
    num_turns,
)
from zenray.bench.speculative_prompts import SpeculativeKind, SpeculativePrompt
from zenray.bench.speculative_report import MIN_TOKENS, ROW_KEYS, first_difference, speculative_rows
from zenray.bench.speculative_tables import speculative_markdown
from zenray.bench.tables import show
from zenray.engine.engine import Engine
from zenray.engine.request import DrafterLoad, DrafterUsage, Sampling, Usage
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.errors import ZenrayError

MakeEngine = Callable[..., Engine]
NUM_TOKENS = 20
RIGHT, WRONG = Side(("right",), 4), Side(("wrong",), 2)
LABELS = {"model": "tiny", "format": "f64", "draft_model": "", "temperature": 0.0}


class Scripted:
    """Drafts `gamma` tokens of the known answer, all right or all wrong."""

    def __init__(self, side: Side, answers: dict[tuple[int, ...], tuple[int, ...]]) -> None:
        self.side, self.answers = side, answers
        self.open: set[int] = set()
        self.is_shut_down = False

    def opened(self, sequence: Sequence) -> None:
        self.open.add(sequence.handle)

    def propose(self, sequences: Ordered[Sequence], room: int) -> None:
        for sequence in sequences:
            answer = self.answers.get(tuple(sequence.token_ids[: sequence.num_prompt]), ())
            assert isinstance(self.side.gamma, int)
            count = min(self.side.gamma, sequence.max_draft)
            tokens = answer[sequence.num_output : sequence.num_output + count]
            if self.side == WRONG:
                tokens = tuple((token + 1) % 256 for token in tokens)
            sequence.draft = Draft(self.side.drafters[0], tokens, (0,) * len(tokens)) if tokens else None

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor, step_ms: float, is_pure_decode: bool) -> None:
        assert step_ms >= 0

    def closed(self, sequence: Sequence) -> None:
        self.open.remove(sequence.handle)

    def load(self) -> tuple[DrafterLoad, ...]:
        return ()

    def shutdown(self) -> None:
        self.is_shut_down = True


@pytest.fixture(scope="module")
def prompts() -> list[SpeculativePrompt]:
    return [
        SpeculativePrompt("fresh", f"p{number}", tuple(range(40 + number, 60 + number)), NUM_TOKENS)
        for number in range(3)
    ]


def plain_answers(
    engine: Engine, prompts: list[SpeculativePrompt], sampling: Sampling
) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The answers, from a measurement without sides."""
    measured = measure_speculation(engine, [], [prompts[0], *prompts], lambda side: Scripted(side, {}), 1, sampling)
    return {prompt.token_ids: reference.token_ids for prompt, reference in measured.references.items()}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafters_are_reported_as_what_they_are(
    make_engine: MakeEngine, prompts: list[SpeculativePrompt], temperature: float
) -> None:
    engine, sampling = make_engine(), Sampling(temperature=temperature, seed=3)
    answers = plain_answers(engine, prompts, sampling)
    made: list[Scripted] = []
    steps: list[str] = []

    def make(side: Side) -> Scripted:
        made.append(Scripted(side, answers))
        return made[-1]

    repeats = 1 if temperature else 2
    measured = measure_speculation(engine, [RIGHT, WRONG], prompts, make, repeats, sampling, steps.append)
    assert len(steps) == num_turns(2, repeats)
    assert [run.side for run in measured.runs[:8]] == [PLAIN, RIGHT, WRONG, PLAIN, PLAIN, WRONG, RIGHT, PLAIN]
    assert len(made) == 2 * repeats and all(one.is_shut_down and not one.open for one in made)
    assert engine.speculator is None and not engine.has_work
    engine.check_integrity()

    plain, right, wrong = speculative_rows(measured, lambda rows: 1.0, LABELS)
    for row in (plain, right, wrong):
        assert (row["differing"], row["num_prompts"], row["kind"]) == ([], 2, "fresh")
        assert row["speedup"]["count"] == 2 and row["tokens_per_s"]["minimum"] > 0
    assert plain["mean_gamma"] is plain["predicted_speedup"] is plain["acceptance"] is None
    assert plain["tokens_per_round"] == wrong["tokens_per_round"] == 1
    assert (right["acceptance"], wrong["acceptance"]) == (1, 0)
    # 19 tokens behind the first: three whole drafts of 4 with their bonus tokens, and one of 3 for what is left.
    num_answers = 2 * repeats
    assert right["rounds"] == num_answers * 5
    assert right["tokens_per_round"] == NUM_TOKENS / 5
    assert right["by_drafter"] == [
        {"drafter": "right", "rounds": 4 * num_answers, "drafted_tokens": 15 * num_answers,
         "accepted_tokens": 15 * num_answers},
    ]  # fmt: skip
    assert right["model_speedup"] == pytest.approx(right["mean_gamma"] + 1)
    assert wrong["model_speedup"] == pytest.approx(1)
    assert wrong["predicted_speedup"] < 1 < right["predicted_speedup"] < right["model_speedup"]
    assert all(right["round_ms"][name]["count"] == 4 * num_answers for name in ("draft", "verify", "learn"))


def test_the_margin_is_that_of_the_choice(make_engine: MakeEngine, prompts: list[SpeculativePrompt]) -> None:
    for sampling in (Sampling(), Sampling(temperature=0.7, seed=1)):
        measured = measure_speculation(make_engine(), [], prompts, lambda side: Scripted(side, {}), 1, sampling)
        for reference in measured.references.values():
            assert len(reference.margins) == len(reference.token_ids) == NUM_TOKENS
            assert all(margin > 0 for margin in reference.margins)  # the chosen token was ahead of all others


def test_an_engine_at_work_is_refused(make_engine: MakeEngine, prompts: list[SpeculativePrompt]) -> None:
    engine = make_engine(speculator=Scripted(RIGHT, {}))
    with pytest.raises(ZenrayError, match="idle engine"):
        measure_speculation(engine, [RIGHT], prompts, lambda side: Scripted(side, {}))


def run_of(side: Side, prompt: SpeculativePrompt, rate: float, token_ids: tuple[int, ...], num_tokens: int) -> Run:
    usage = Usage(20, num_tokens, 0, num_tokens, (DrafterUsage("right", 2, 4, 1),) if side.drafters else ())
    return Run(side, prompt, 0, token_ids, num_tokens, num_tokens / rate, usage)


def test_a_prompt_is_judged_by_the_plain_runs_of_its_own_turn(prompts: list[SpeculativePrompt]) -> None:
    first, second, third = prompts
    side = Side(("right",))
    same, other = (1, 2, 3), (1, 9, 3)
    runs = (
        run_of(PLAIN, first, 10, same, 100),
        run_of(side, first, 30, same, 100),
        run_of(PLAIN, first, 14, same, 100),
        # The machine has become slower: the same drafter loses here, whatever it did before.
        run_of(PLAIN, second, 5, same, 100),
        run_of(side, second, 4, other, 100),
        run_of(PLAIN, second, 5, same, 100),
        run_of(PLAIN, third, 10, same, MIN_TOKENS - 1),
        run_of(side, third, 99, same[:2], MIN_TOKENS - 1),
    )
    references = {prompt: Reference(same, (0.5, 0.01, 0.2)) for prompt in (first, second, third)}
    plain, right = speculative_rows(SpeculativeMeasurement(runs, references), float, LABELS)
    assert right["gamma"] == "auto"
    assert right["speedup"]["maximum"] == pytest.approx(2.5)
    assert (right["speedup"]["minimum"], right["worst_prompt"], right["num_below"]) == (pytest.approx(0.8), "p1", 1)
    assert (plain["num_too_short"], right["num_too_short"]) == (1, 1)
    assert right["differing"] == [
        {"prompt": "p1", "at": 1, "margin": 0.01},
        {"prompt": "p2", "at": 2, "margin": 0.2},
    ]
    text = speculative_markdown(report_of([plain, right]))
    assert "right, auto: 1 of 2 prompts below 0.95, the worst p1 at 0.80" in text
    assert "ahead by at most 0.2000 in log p (2 places)" in text
    assert "1 answers were too short" in text


def report_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    prompts = {"sha256": "0" * 64, "python": "3", "count": 3}
    settings = {"repeats": 1}
    return make_report("speculative", rows, prompts=prompts, settings=settings, bandwidth=None, foreign_cpu_share=None)


def test_a_report_is_printed_drawn_and_put_into_its_document(
    make_engine: MakeEngine, prompts: list[SpeculativePrompt], tmp_path: Path
) -> None:
    from rich.console import Console

    engine = make_engine()
    answers = plain_answers(engine, prompts, Sampling())
    kinds: tuple[SpeculativeKind, ...] = ("infill", "infill", "edit")
    every_kind = [replace(prompt, kind=kind) for prompt, kind in zip(prompts, kinds, strict=True)]
    measured = measure_speculation(engine, [RIGHT, WRONG], every_kind, lambda side: Scripted(side, answers))
    rows = speculative_rows(measured, lambda rows: 1.0 + rows / 10, LABELS)
    report = report_of(rows)
    assert [(row["kind"], row["drafters"]) for row in rows] == [
        (kind, drafters) for kind in ("infill", "edit") for drafters in ([], ["right"], ["wrong"])
    ]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in show(report):
        console.print(part)
    shown = console.export_text()
    document = "# Title\n<!-- speculative-tiny-f64:begin -->\n<!-- speculative-tiny-f64:end -->\n"
    written = update_document(document, report)
    for text in (shown, written):
        assert "right" in text and "wrong" in text
        assert "100%" in text and "0/1" in text and "tok/round" in text and "Edits:" in text
    plot_report(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_the_command_measures_real_drafters(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    pair = ["--profile", "tiny", "--draft-model", "preset:tiny", "--set", "draft.weight_format=float32"]
    sides = ["--drafters", "suffix+recycling,draft_model", "--gamma", "4"]
    size = ["--kind", "fresh", "--prompts", "1", "--max-tokens", "20"]
    files = ["--json", str(out), "--markdown", str(tmp_path / "report.md")]
    for extra in ([], ["--gamma", "2", "--keep"]):
        result = CliRunner().invoke(app, ["speculative", *pair, *sides, *size, *files, *extra])
        assert result.exit_code == 0, result.exception
    rows = json.loads(out.read_text())["results"]
    assert [(row["drafters"], row["gamma"]) for row in rows] == [
        ([], None), (["suffix", "recycling"], 4), (["draft_model"], 4), (["suffix", "recycling"], 2),
        (["draft_model"], 2),
    ]  # fmt: skip
    for row in rows:
        assert row["differing"] == [] and row["tokens_per_s"]["count"] >= 1
        if row["drafters"] == ["draft_model"]:  # a draft model equal to its verifier is always right
            assert row["acceptance"] == 1
            assert row["round_ms"]["draft"]["minimum"] > 0
    assert "Fresh code" in (tmp_path / "report.md").read_text()


def test_pieces_of_a_measurement_make_one_report() -> None:
    def row(kind: str, gamma: Any, value: float) -> dict[str, Any]:
        return {**LABELS, "kind": kind, "drafters": ["suffix"], "gamma": gamma, "value": value}

    old, new = [row("fresh", "auto", 1), row("fresh", 2, 2)], [row("fresh", 2, 3), row("edit", 2, 4)]
    assert [entry["value"] for entry in merge_rows(old, new, ROW_KEYS)] == [1, 3, 4]


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_the_first_difference_parts_equal_beginnings(left: list[int], right: list[int]) -> None:
    at = first_difference(left, right)
    assert left[:at] == right[:at]
    assert left == right or left[at : at + 1] != right[at : at + 1]
