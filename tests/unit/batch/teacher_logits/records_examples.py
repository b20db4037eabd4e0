"""Distributions, records of them and small dumps of such records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from hypothesis import settings

from zenray.batch.job import JobSpec, ModelIdentity
from zenray.batch.output.store import OutputStore
from zenray.batch.rows import ERROR, ROW_ID, row_id, row_ids_digest
from zenray.batch.teacher_logits.columns import segment_columns
from zenray.batch.teacher_logits.model import Mode, PackedSequence, Segment
from zenray.batch.teacher_logits.records.footer import Footer
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.sequence import encode_hidden, encode_sequence
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.batch.teacher_logits.results.record import HIDDEN_STATES, hidden_schema, record_schema
from zenray.engine.row_scorer import summaries, to_records
from zenray.engine.scoring import HiddenRows, ScoredRows, ScoreFormat
from zenray.ops.reference import ReferenceBackend

steady = settings(deadline=None, derandomize=True)
"""The same examples every time, however busy the machine is."""

VOCAB_SIZE = 300
"""More than a byte holds."""


def random_logits(seed: int, num_rows: int, vocab_size: int = VOCAB_SIZE) -> np.ndarray:
    """float64 [R, V]: of some rows the teacher is sure, of others it knows nothing."""
    random = np.random.default_rng(seed)
    spreads_R1 = random.choice([0.1, 1.0, 3.0, 8.0], (num_rows, 1))
    drawn_RV: np.ndarray = random.normal(0, 1, (num_rows, vocab_size)) * spreads_R1
    return drawn_RV


def rows_of(
    logits_RV: np.ndarray, gold_ids_R: np.ndarray, uniforms_R: np.ndarray, form: ScoreFormat, hidden_width: int = 0
) -> ScoredRows:
    gold_ids = torch.from_numpy(np.asarray(gold_ids_R, np.int64))
    ops = ReferenceBackend(torch.float64)
    found = summaries(ops, torch.from_numpy(logits_RV), gold_ids, torch.from_numpy(uniforms_R), form)
    states = HiddenRows(
        (logits_RV[:, :hidden_width] * 9).clip(-127, 127).astype(np.int8), np.ones(len(logits_RV), "f4")
    )
    return replace(to_records([found], first_position=0), hidden={2: states} if hidden_width else {})


def random_rows(seed: int, num_rows: int, form: ScoreFormat, hidden_width: int = 0) -> ScoredRows:
    random = np.random.default_rng(seed)
    gold_ids_R = random.integers(0, VOCAB_SIZE, num_rows)
    return rows_of(random_logits(seed, num_rows), gold_ids_R, random.random(num_rows), form, hidden_width)


def random_vocabulary(seed: int, vocab_size: int = VOCAB_SIZE) -> Vocabulary:
    random = np.random.default_rng(seed)
    return Vocabulary(random.zipf(1.5, vocab_size).clip(max=10**6) * random.integers(0, 2, vocab_size))


def random_sequence(seed: int) -> PackedSequence:
    """One to three segments of 3 to 12 tokens, some of which only give context."""
    random = np.random.default_rng(seed)
    segments = [
        Segment(
            token_ids=random.integers(0, VOCAB_SIZE, int(random.integers(3, 13))).tolist(),
            first_scored=int(random.integers(1, 3)),
            mode=Mode.PLAIN,
            language="python",
            path=f"{seed}-{index}.py",
            repository="",
            revision="",
            licence_file="",
            window=0,
        )
        for index in range(int(random.integers(1, 4)))
    ]
    return PackedSequence(row_id(str(seed)), tuple(segments))


def write_dump(
    output: Path,
    num_sequences: int,
    rows_per_shard: int,
    format_name: str = "compact-48",
    with_error: Sequence[int] = (),
    hidden_width: int = 0,
    shards: Sequence[int] | None = None,
) -> list[tuple[PackedSequence, ScoredRows]]:
    """An output as the job writes it, complete unless only some `shards` are asked for. What was recorded in it."""
    layers = (2,) if hidden_width else ()
    form = parse_format(format_name)
    footer = Footer(form, random_vocabulary(1), {"name": "toy", "sha256": "0" * 64}, "1" * 64, "2" * 64, layers)
    schema, beside = record_schema(footer), hidden_schema(footer)
    recorded, records, hidden = [], [], []
    for index in range(num_sequences):
        sequence = random_sequence(index)
        scored = random_rows(index, sequence.num_scored, form.score_format, hidden_width)
        recorded.append((sequence, scored))
        record = dict.fromkeys(schema.names) | {ROW_ID: sequence.row_id} | segment_columns(sequence.segments)
        if index in with_error:
            records.append(record | {ERROR: "no teacher could read it"})
            continue
        token_ids_T = np.concatenate([np.array(segment.token_ids) for segment in sequence.segments])
        values = encode_sequence(sequence.row_id, token_ids_T, scored, form, footer.vocabulary, index)
        records.append(record | values)
        hidden.append({ROW_ID: sequence.row_id} | encode_hidden(sequence.row_id, scored.hidden))
    spec = JobSpec(
        job="teacher-logits",
        job_version=1,
        seed=0,
        parameters={},
        inputs=(),
        model=ModelIdentity("toy", "0" * 64, "float64", 128, VOCAB_SIZE),
        rows_per_shard=rows_per_shard,
        row_ids_sha256=row_ids_digest(record[ROW_ID] for record in records),
    )
    companions = (HIDDEN_STATES,) if hidden_width else ()
    starts = range(0, num_sequences, rows_per_shard)
    with OutputStore.open(output, spec, len(starts), companions=companions) as store:
        for shard in range(len(starts)) if shards is None else shards:
            part = records[starts[shard] :][:rows_per_shard]
            ids = {record[ROW_ID] for record in part}
            tables = {
                name: pa.Table.from_pylist([row for row in hidden if row[ROW_ID] in ids], beside) for name in companions
            }
            num_tokens = sum(rows.num_rows for sequence, rows in recorded if sequence.row_id in ids)
            store.write(shard, pa.Table.from_pylist(part, schema), num_tokens, tables)
        if shards is None:
            store.complete()
    return recorded
