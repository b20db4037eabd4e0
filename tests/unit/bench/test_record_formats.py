"""Record formats measured on a toy teacher: the sums that stand for its distributions give what full ones would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from zenray.batch.teacher_logits.model import Mode, PackedSequence, Segment
from zenray.batch.teacher_logits.reading.reconstruct import dense
from zenray.batch.teacher_logits.reading.tail_prior import tail_prior
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.bench.document import write_blocks
from zenray.bench.record_comparison import bytes_per_token, compare
from zenray.bench.record_fidelity import largest_within, teacher_row
from zenray.bench.record_formats import (
    DistillKitFormat,
    MeasuredFormat,
    OurFormat,
    Priors,
    SampledFormat,
    TopFormat,
    pack_bits,
    published,
    sparse_of,
)
from zenray.bench.record_pass import NUM_KEPT, ExactRows, Reference, code_rows, record_seed
from zenray.bench.record_redraws import Positions, redraw
from zenray.bench.record_report import plot_records
from zenray.bench.record_statistics import sums_of
from zenray.bench.record_texts import parts_of
from zenray.bench.report import make_report
from zenray.model.load import LoadedModel, load_preset

OURS = ("compact-16", "compact-8")


@pytest.fixture(scope="module")
def teacher() -> LoadedModel:
    """Sharper than random weights are by themselves, so that rows differ in entropy."""
    model = load_preset("tiny", {"vocab_size": 600}, seed=3, dtype=torch.float32)
    head = model.decoder.head

    @torch.inference_mode()
    def sharper(states_RD: torch.Tensor, out_RV: torch.Tensor | None = None) -> torch.Tensor:
        return head(states_RD, out_RV).mul_(2.5)

    model.decoder.head = sharper  # type: ignore[method-assign]
    return model


@pytest.fixture(scope="module")
def sequences() -> list[PackedSequence]:
    chance = np.random.default_rng(0)

    def segment(length: int, first_scored: int) -> Segment:
        ids = tuple(int(each) for each in chance.integers(0, 256, length))
        return Segment(ids, first_scored, Mode.PLAIN, "python", "a.py", "", "", "", 0)

    return [PackedSequence(f"{n:032x}", (segment(60, 1), segment(90, 20), segment(2, 1))) for n in range(12)]


@pytest.fixture(scope="module")
def priors() -> Priors:
    counts_V = np.bincount(np.random.default_rng(1).zipf(1.3, 5000) % 600, minlength=600)
    return Priors(Vocabulary(counts_V), {"own": 0, "other": 1, "uniform": 2})


@pytest.fixture(scope="module")
def parts(teacher: LoadedModel, sequences: list[PackedSequence], priors: Priors) -> list[ExactRows]:
    other_priors_VP = np.column_stack([np.full(600, 1 / 600), np.full(600, 1 / 600)])
    formats = [parse_format(name) for name in OURS]
    reference = Reference(teacher.decoder, teacher.decoder, priors.vocabulary, formats, other_priors_VP, 3)
    heard: list[int] = []
    made = [reference.part(part, index, heard.append) for index, part in enumerate(parts_of(sequences, 12))]
    assert sum(heard) == sum(part.num_rows for part in made) == 12 * (59 + 70 + 1)
    return made


def full_rows(teacher: LoadedModel, sequences: list[PackedSequence]) -> np.ndarray:
    """Every row's distribution [R, V] in float64, in the order of the sequences, each segment alone."""
    from zenray.model.evaluate import sequence_logits

    rows = [
        torch.softmax(sequence_logits(teacher.decoder, segment.token_ids).double(), 1)[segment.first_scored - 1 : -1]
        for sequence in sequences
        for segment in sequence.segments
    ]
    return torch.cat(rows).numpy()


def test_a_pass_keeps_what_the_distributions_are(
    teacher: LoadedModel, sequences: list[PackedSequence], parts: list[ExactRows], tmp_path: Path
) -> None:
    exact_RV = full_rows(teacher, sequences)
    together = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("entropies_R", "gold_ids_R")}
    np.testing.assert_allclose(together["entropies_R"], -(exact_RV * np.log(exact_RV)).sum(axis=1), rtol=1e-4)
    gold_R = np.concatenate([part.gold_logprobs_R for part in parts])
    np.testing.assert_allclose(gold_R, np.log(exact_RV[np.arange(len(exact_RV)), together["gold_ids_R"]]), atol=1e-4)
    np.testing.assert_allclose(sum(part.teacher_sums_JV[0] for part in parts), exact_RV.sum(axis=0), rtol=1e-4)
    rest_R = np.concatenate([part.rest_masses_R for part in parts])
    np.testing.assert_allclose(rest_R, np.sort(exact_RV, axis=1)[:, :-NUM_KEPT].sum(axis=1), rtol=1e-3, atol=1e-7)
    parts[0].save(tmp_path / "part.npz")
    again = ExactRows.load(tmp_path / "part.npz")
    assert again.num_rows == parts[0].num_rows and (again.top_ids_RK == parts[0].top_ids_RK).all()


def test_divergences_and_biases_are_those_of_the_readers_own_distributions(
    teacher: LoadedModel, sequences: list[PackedSequence], parts: list[ExactRows], priors: Priors
) -> None:
    exact_RV, vocabulary = full_rows(teacher, sequences), priors.vocabulary
    measured = OurFormat(parse_format("compact-16"), 0, priors, Vocabulary(np.ones(600, np.int64)))
    row = compare(lambda: iter(parts), measured, vocabulary)
    read = [
        code_rows(part.scored(rows, 0), measured.record_format, vocabulary, record_seed(row_id))
        for part in parts
        for row_id, _, rows in part.sequences()
    ]
    full_RV = np.concatenate([dense(each, tail_prior(each, vocabulary)).double().numpy() for each in read])
    kl_R = (exact_RV * np.log(exact_RV / full_RV)).sum(axis=1)
    readings = {each["reading"]: each for each in row["readings"]}
    assert readings["dense"]["kl"]["mean"] == pytest.approx(kl_R.mean(), rel=1e-3)
    assert readings["dense"]["kl"]["max"] == pytest.approx(kl_R.max(), rel=1e-3)
    bias_V = (full_RV - exact_RV).mean(axis=0)
    assert readings["dense"]["bias"]["measured"] == pytest.approx(np.linalg.norm(bias_V), rel=1e-2)
    assert readings["dense"]["bias_l1"] == pytest.approx(np.abs(bias_V).sum(), rel=1e-2)
    # Rounding makes ties.
    has_top_R = full_RV[np.arange(len(full_RV)), exact_RV.argmax(1)] >= full_RV.max(1) - 1e-7
    assert readings["dense"]["same_top"] == pytest.approx(has_top_R.mean())
    kept = np.mean([np.exp(each.head_logprobs_N.astype(float)).sum() / each.num_rows for each in read])
    assert row["mass_kept"] == pytest.approx(kept, rel=0.01)
    assert row["raw_bytes_per_token"] > row["bytes_per_token"] > 0


def test_dropping_tails_is_found_to_be_biased_and_sampling_them_is_not(parts: list[ExactRows], priors: Priors) -> None:
    other = Vocabulary(np.ones(600, np.int64))
    ours = compare(lambda: iter(parts), OurFormat(parse_format("compact-8"), 1, priors, other), priors.vocabulary)
    top = compare(lambda: iter(parts), TopFormat(8, priors), priors.vocabulary)
    sparse = next(each for each in ours["readings"] if each["reading"] == "sparse")["bias"]
    dropped = next(each for each in top["readings"] if each["reading"] == "renormalised")["bias"]
    assert sparse["corrected_squared"] < 3 * sparse["standard_error_squared"]
    assert dropped["corrected_squared"] > 3 * dropped["standard_error_squared"]
    assert dropped["corrected"] > 2 * sparse["upper"]


def test_redraws_do_not_accuse_the_compact_format_but_one_that_rounds(parts: list[ExactRows], priors: Priors) -> None:
    from zenray.ops import backend_for

    positions = Positions(
        np.concatenate([part.whole_logits_XV for part in parts]),
        np.concatenate([part.whole_student_XV for part in parts]),
    )
    ops = backend_for("cpu", torch.float32)
    honest = redraw(positions, parse_format("compact-8"), priors.vocabulary, ops, 100)
    assert honest["beyond_3"] <= 0.02 * honest["statistics"] and honest["root_mean_square_z"] < 1.3
    biased = redraw(positions, parse_format("top-8"), priors.vocabulary, ops, 3)
    assert biased["beyond_3"] > 0.5 * biased["statistics"]


def test_a_report_says_what_is_met_and_stands_in_its_block(
    parts: list[ExactRows], priors: Priors, tmp_path: Path
) -> None:
    other = Vocabulary(np.ones(600, np.int64))
    formats = [OurFormat(parse_format(name), index, priors, other) for index, name in enumerate(OURS)]
    measured: list[MeasuredFormat] = [*formats, TopFormat(50, priors), *published(priors), SampledFormat(12, priors)]
    of_formats = [compare(lambda: iter(parts), each, priors.vocabulary) for each in measured]
    rows = [teacher_row(lambda: iter(parts)), *of_formats]
    settings = {"teacher": "toy", "weight_format": "float32", "student": "toy", "window_tokens": 152, "fim_rate": 0.5}
    prompts = {"packages": {"python": "a==1", "c": "b==2"}}
    report = make_report("records", rows, prompts=prompts, settings=settings, bandwidth=None, foreign_cpu_share=None)
    document = tmp_path / "page.md"
    document.write_text("Before\n<!-- records:begin -->\nold\n<!-- records:end -->\nafter\n", encoding="utf-8")
    write_blocks(document, report)
    page = document.read_text(encoding="utf-8")
    assert "old" not in page and page.startswith("Before") and page.endswith("after\n")
    size = of_formats[0]["bytes_per_token"]
    assert f"| bytes a token | {size:.1f} {'met' if size <= 50 else 'missed'} |" in page
    assert all(f"| {each.name} |" in page for each in measured)
    plot_records(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_of_growing_formats_the_largest_within_a_budget_is_taken(parts: list[ExactRows], priors: Priors) -> None:
    def bytes_of(measured: MeasuredFormat) -> float:
        return bytes_per_token(lambda: iter(parts), measured, priors.vocabulary)[0]

    tops: list[MeasuredFormat] = [TopFormat(k, priors) for k in range(4, 20)]
    chosen = largest_within(tops, bytes_of, bytes_of(TopFormat(9, priors)))
    assert chosen.name == "top-9"
    assert largest_within(tops, bytes_of, 0.0).name == "top-4" and largest_within(tops, bytes_of, 1e6).name == "top-19"


def test_distillkit_reads_back_what_its_terms_can_say(priors: Priors) -> None:
    places = np.arange(20.0)
    logprobs_RK = np.stack([-1.0 - 0.3 * places, -0.5 - 0.1 * places - 0.5 * np.sqrt(places)])
    kit = DistillKitFormat("kit", 20, 1, 32, (0.0, 1.0, 0.5), False, priors)
    exact, coefficients_RT, read_RK = kit.compress(logprobs_RK)
    assert len(exact) == 2 * 4 and coefficients_RT.shape == (2, 3)
    np.testing.assert_allclose(read_RK[0], logprobs_RK[0], atol=1e-4)
    differences = DistillKitFormat("kit", 20, 4, 16, (0.0, 1.0, 2.0), True, priors)
    np.testing.assert_allclose(differences.compress(logprobs_RK)[2][0], logprobs_RK[0], atol=0.01)


def test_distillkit_takes_the_bytes_it_says(parts: list[ExactRows], priors: Priors) -> None:
    kit = DistillKitFormat("DistillKit budget", 50, 1, 16, (0.0, 1.0, 0.5), False, priors)
    row_id, _, rows = next(parts[0].sequences())
    values = kit.code(parts[0], row_id, rows).values
    num_rows = rows.stop - rows.start
    # 10 bits of an id in a vocabulary of 600, a bfloat16, three float32.
    assert {name: len(data) / num_rows for name, data in values.items()} == {"ids": 63, "exact": 2, "coefficients": 12}
    assert bytes_per_token(lambda: iter(parts), kit, priors.vocabulary)[1] == pytest.approx(77 + 3 * 152 / 130)


def test_bits_are_packed_row_by_row() -> None:
    packed = pack_bits(np.array([[5, 1, 7], [0, 7, 2]]), 3)
    assert packed == bytes([0b10100111, 0b10000000, 0b00011101, 0b00000000])


def test_draws_stand_for_how_often_they_fell(parts: list[ExactRows], priors: Priors) -> None:
    part = parts[0]
    row_id, _, rows = next(part.sequences())
    (reading,) = SampledFormat(25, priors).code(part, row_id, rows).readings
    expected_V = np.bincount(part.draws_RN[rows, :25].ravel(), minlength=600) / 25
    np.testing.assert_allclose(sums_of(reading.found, np.ones(rows.stop - rows.start), reading.prior_V), expected_V)


def test_a_sparse_reading_has_every_draw_of_the_tail(parts: list[ExactRows], priors: Priors) -> None:
    rows = next(parts[0].sequences())[2]
    read = code_rows(parts[0].scored(rows, 1), parse_format("compact-8"), priors.vocabulary, 1)
    totals_R = sparse_of(read).probabilities_RK.sum(axis=1)
    heads_R = np.add.reduceat(
        np.exp(read.head_logprobs_N.astype(float)), np.cumsum(read.head_counts_R) - read.head_counts_R
    )
    np.testing.assert_allclose(totals_R, heads_R + read.tail_masses_R, rtol=1e-6)
