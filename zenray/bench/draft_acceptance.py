"""What a dump predicts of a draft model, and what speculation then does: tokens a round, on the same texts.

    python -m zenray.bench.draft_acceptance DUMP [--draft MODEL] [--json REPORT] [--doc docs/teacher-logits.md]

Predicted from the records of all texts of a teacher-logits output by the draft model alone. Measured with the engine:
from a place within each of some of these texts the teacher goes on, and the draft model drafts gamma tokens for every
round. What the teacher samples at temperature 1 is harder to guess than what people wrote.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from zenray.batch.teacher_logits.acceptance.measure import Accepted, TeacherText, measure_acceptance
from zenray.batch.teacher_logits.acceptance.report import AcceptanceReport
from zenray.batch.teacher_logits.acceptance.texts import teacher_texts
from zenray.batch.teacher_logits.model import Mode
from zenray.batch.teacher_logits.reading.reader import RecordReader
from zenray.bench.document import write_blocks
from zenray.bench.draft_acceptance_report import acceptance_markdown
from zenray.bench.report import make_report, write_report
from zenray.build import build_engine
from zenray.config_load import load_config
from zenray.engine.engine import Engine
from zenray.engine.request import Final, GenerateRequest, Limits, Sampling
from zenray.model.catalog import resolve
from zenray.model.load import load_model

NUM_NEW_TOKENS = 48
MIN_PROMPT_TOKENS, MAX_PROMPT_TOKENS = 128, 768


def prompts(reader: RecordReader, count: int) -> list[tuple[str, tuple[int, ...]]]:
    """Beginnings of `count` plain texts, two thirds of each, with their languages."""

    def candidates() -> Iterator[tuple[str, tuple[int, ...]]]:
        for sequence in reader:
            for segment in sequence.segments:
                end = min(MAX_PROMPT_TOKENS, len(segment.token_ids) * 2 // 3)
                if segment.mode is Mode.PLAIN and end >= MIN_PROMPT_TOKENS:
                    yield segment.language, tuple(segment.token_ids[:end])

    return list(itertools.islice(candidates(), count))


def speculate(engine: Engine, texts: Sequence[tuple[str, tuple[int, ...]]], temperature: float) -> dict[str, Any]:
    """Rounds and tokens of all texts, one after another."""
    rounds = tokens = 0
    for number, (_, token_ids) in enumerate(track(texts, f"temperature {temperature:g}", console=Console(stderr=True))):
        sampling = Sampling(temperature=temperature, seed=number)
        engine.add(
            GenerateRequest(str(number), token_ids, sampling, Limits(max_tokens=NUM_NEW_TOKENS, ignore_eos=True))
        )
        finals = [event for event in _events(engine) if isinstance(event, Final)]
        rounds += sum(final.usage.rounds for final in finals)
        tokens += sum(final.usage.completion_tokens for final in finals)
    return {"rounds": rounds, "tokens": tokens, "tokens_per_round": tokens / rounds}


def _events(engine: Engine) -> Iterator[object]:
    while engine.has_work:
        for _, event in engine.step():
            yield event


def predict(reader: RecordReader, draft: str, weight_format: str, gamma: int) -> dict[str, Accepted]:
    decoder = load_model(resolve(draft), weight_format=weight_format).decoder  # type: ignore[arg-type]
    texts: list[TeacherText] = list(teacher_texts(reader))
    return measure_acceptance(decoder, track(texts, "predicting", console=Console(stderr=True)), gamma)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m zenray.bench.draft_acceptance", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("dump", type=Path, help="the output of a teacher-logits job of --teacher")
    parser.add_argument("--draft", default="qwen2.5-coder-0.5b")
    parser.add_argument("--draft-format", default="mixed")
    parser.add_argument("--texts", type=int, default=32, help="texts that the engine goes on from")
    parser.add_argument("--json", type=Path, metavar="REPORT")
    parser.add_argument("--doc", type=Path, help="whose block of acceptance to write again")
    arguments = parser.parse_args()

    reader, gamma = RecordReader(arguments.dump), 8
    teacher = str(reader.footer.teacher["name"])
    measured = predict(reader, arguments.draft, arguments.draft_format, gamma)
    predicted = AcceptanceReport.of(arguments.draft, teacher, gamma, measured)
    overrides = [
        f"model.name={teacher}",
        f"model.weight_format={reader.footer.teacher['weight_format']}",
        "speculation.drafters=[draft_model]",
        f"speculation.gamma={gamma}",
        f"draft.model={arguments.draft}",
        f"draft.weight_format={arguments.draft_format}",
    ]
    texts = prompts(reader, arguments.texts)
    engine = build_engine(load_config("local", None, overrides))
    try:
        speculated = {f"{temperature:g}": speculate(engine, texts, temperature) for temperature in (0.0, 1.0)}
    finally:
        engine.shutdown()
    report = make_report(
        "acceptance",
        [{"predicted": predicted.to_json(), "measured": speculated}],
        prompts={"dump": reader.job_sha256},
        settings={"draft_format": arguments.draft_format, "texts": len(texts), "new_tokens": NUM_NEW_TOKENS},
        bandwidth=None,
        foreign_cpu_share=None,
    )
    if arguments.json is not None:
        write_report(report, arguments.json)
    if arguments.doc is not None:
        write_blocks(arguments.doc, report)
    print(acceptance_markdown(report))


if __name__ == "__main__":
    main()
