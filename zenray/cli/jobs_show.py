"""How a scored sequence looks: its text coloured by what the teacher thought of it, and where it thought otherwise."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from zenray.cli.console import facts, printable, table
from zenray.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from zenray.batch.teacher_logits.model import Segment
    from zenray.batch.teacher_logits.reading.reader import RecordedSequence, RecordReader
    from zenray.engine.scoring import ScoredRows
    from zenray.model.tokenizer import Tokenizer

_COLOURS = ((0.9, "green"), (0.5, ""), (0.1, "yellow"), (0.0, "red"))
"""By the teacher's probability of the token that stands there, at least."""
_BEFORE_CHARS = 36
_MOST_ALTERNATIVES = 4


def show(reader: RecordReader, row: int, num_surprises: int, model: str | None) -> RenderableType:
    """Raises InvalidRequest for a row that is not there, ConfigError where its tokens cannot be spelled."""
    sequence = _sequence(reader, row)
    tokenizer = _tokenizer(reader, model)
    rows = facts()
    rows.add_row("row", f"{row}, {sequence.row_id}")
    rows.add_row("teacher", printable(f"{reader.footer.teacher['name']}, {reader.footer.teacher['weight_format']}"))
    rows.add_row("format", reader.footer.record_format.name)
    rows.add_row("tokens", f"{len(sequence.token_ids_T):,}, {sequence.rows.num_rows:,} of them with a record")
    rows.add_row("entropy", f"{float(sequence.rows.entropies_R.mean()):.2f} nats in the mean")
    rows.add_row("colours", _legend())
    parts: list[RenderableType] = [rows]
    for segment, records in sequence.by_segment():
        parts += [Text(), Text(_title(segment), "name"), _coloured(segment, records, tokenizer)]
        if num_surprises:
            parts += [Text(), _surprises(segment, records, tokenizer, num_surprises)]
    return Group(*parts)


def _sequence(reader: RecordReader, row: int) -> RecordedSequence:
    left = row
    for shard in reader.shards:
        if left < reader.num_rows(shard):
            if (stored := reader.stored_rows(shard)[left]) is not None:
                return reader.decode(stored)
            break
        left -= reader.num_rows(shard)
    num_rows = sum(map(reader.num_rows, reader.shards))
    raise InvalidRequest.of("--row", row, f"0 to {num_rows - 1}, without those that have an error")


def _tokenizer(reader: RecordReader, model: str | None) -> Tokenizer:
    """The teacher's, from its file here. Raises ConfigError where there is none, or it is another."""
    from zenray.errors import ZenrayError
    from zenray.model.catalog import source_of
    from zenray.model.load import load_tokenizer
    from zenray.model.tokenizer_json import tokenizer_digest

    name = model or reader.footer.teacher["name"]
    try:
        found = load_tokenizer(source_of(name))
    except ZenrayError as error:
        raise ConfigError(f"the tokens are spelled by {name}, which is not here: {error}; --model names it") from error
    if tokenizer_digest(found) != reader.footer.tokenizer_sha256:
        raise ConfigError(f"{name} has another tokenizer than the teacher of these records; --model names one that has")
    return found


def _title(segment: Segment) -> str:
    window = f", part {segment.window}" if segment.window else ""
    where = f"{segment.repository}: {segment.path}" if segment.repository else segment.path
    return printable(f"{where}{window}  ({segment.language}, {segment.mode.value})")


def _legend() -> Text:
    legend = Text()
    for least, colour in _COLOURS:
        legend.append(f"p ≥ {least:g}  " if least else "less  ", colour)
    return legend.append("no record", "quiet")


def _coloured(segment: Segment, records: ScoredRows, tokenizer: Tokenizer) -> Text:
    text = Text()
    for piece, position in _pieces(segment, tokenizer):
        text.append(piece, _style(position - segment.first_scored, records))
    return text


def _style(record: int, records: ScoredRows) -> str:
    if record < 0:
        return "quiet"
    probability = float(np.exp(records.gold_logprobs_R[record]))
    return next(colour for least, colour in _COLOURS if probability >= least)


def _pieces(segment: Segment, tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    """Text with the position of the token that ends it: a character may take several tokens."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for position, token_id in enumerate(segment.token_ids):
        control = tokenizer.control_token_text(token_id)
        yield control or printable(decoder.decode(tokenizer.token_bytes(token_id))), position
    yield decoder.decode(b"", final=True), len(segment.token_ids) - 1


def _surprises(segment: Segment, records: ScoredRows, tokenizer: Tokenizer, most: int) -> RenderableType:
    shown = table("behind", "stands", "p", "the teacher thought of", right=("p",))
    starts = np.concatenate([[0], np.cumsum(records.head_counts_R)])
    for record in np.argsort(records.gold_logprobs_R, kind="stable")[:most]:
        at = int(record) + segment.first_scored
        head = slice(starts[record], starts[record] + min(_MOST_ALTERNATIVES, records.head_counts_R[record]))
        alternatives = zip(records.head_ids_N[head], np.exp(records.head_logprobs_N[head]), strict=True)
        before = tokenizer.decode(segment.token_ids[max(0, at - _BEFORE_CHARS) : at])[-_BEFORE_CHARS:]
        shown.add_row(
            Text(_one_line(before), "quiet"),
            Text(_named(int(segment.token_ids[at]), tokenizer), "name"),
            f"{np.exp(records.gold_logprobs_R[record]):.2g}",
            "  ".join(f"{_named(int(token_id), tokenizer)} {p:.2f}" for token_id, p in alternatives),
        )
    return shown


def _named(token_id: int, tokenizer: Tokenizer) -> str:
    text = tokenizer.control_token_text(token_id) or tokenizer.decode([token_id])
    return _one_line(text).replace(" ", "·")


def _one_line(text: str) -> str:
    return printable(text.replace("\r", "").replace("\n", "↵").replace("\t", "⇥"))
