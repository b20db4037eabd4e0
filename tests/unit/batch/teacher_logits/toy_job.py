"""The job over a few small texts, run without a cluster: the same stage, rows as text on their way, the same store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.batch.teacher_logits.toy_teacher import ToyTeacher
from zenray.batch.catalog import job_kind
from zenray.batch.inputs.spec import InputSpec
from zenray.batch.job import ServedModel
from zenray.batch.output.store import OutputStore
from zenray.batch.rows import ROW_ID, Row
from zenray.batch.running.pipeline import job_spec
from zenray.batch.running.shard_table import shard_tables
from zenray.batch.running.shard_text import decode_row, encode_row
from zenray.batch.running.stage_rows import process_rows
from zenray.batch.teacher_logits.job import TeacherLogitsJob

OPTIONS = {"planning": {"window_tokens": 96, "overlap_tokens": 24}, "sequences_per_shard": 2}


class Killed(Exception):
    pass


def write_texts(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "LICENSE").write_text("Do what you like with any of it.\n")
    for name in ("one", "two", "three"):
        (folder / f"{name}.py").write_text("".join(f"{name}_{index} = {index}\n" for index in range(9)))
    (folder / "page.md").write_text("# A page\n\nIt says very little about anything at all.\n")
    return folder


def make_job(texts: Path, seed: int = 3, **options: object) -> TeacherLogitsJob:
    kind = job_kind("teacher-logits")
    settings = kind.settings.model_validate({**OPTIONS, **options})
    job = kind.make([InputSpec.parse(f"{texts}#name=texts")], seed, settings)
    assert isinstance(job, TeacherLogitsJob)
    return job


def planned(job: TeacherLogitsJob, teacher: ToyTeacher) -> list[Row]:
    return job.rows(lambda what: None, ServedModel(teacher.model, teacher.tokenizer))


def run(job: TeacherLogitsJob, output: Path, teacher: ToyTeacher, shards_before_kill: int | None = None) -> None:
    """The pipeline without its cluster: the same stage, rows as text on their way, the same store."""

    async def through_stage() -> None:
        rows = planned(job, teacher)
        shards = [rows[start : start + job.rows_per_shard] for start in range(0, len(rows), job.rows_per_shard)]
        spec, row_ids = job_spec(job, rows, teacher.model), [row[ROW_ID] for row in rows]
        (plan,) = job.stages
        stage = plan.make()
        await stage.open(teacher)
        with OutputStore.open(output, spec, len(shards), row_ids, tuple(job.companions)) as store:
            for index in sorted(set(range(len(shards))) - store.finished):
                if len(store.finished) == shards_before_kill:
                    raise Killed
                data = [encode_row(row) for row in shards[index]]
                done = await process_rows(plan.name, stage, data, asyncio.Semaphore(8), lambda: None)
                table, companions, final = shard_tables(job, [decode_row(each) for each in done])
                store.write(index, table, sum(map(job.num_tokens, final)), companions)
            store.complete()
            job.finish(output, lambda what: None)

    asyncio.run(through_stage())
