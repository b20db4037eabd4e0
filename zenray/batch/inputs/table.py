"""Rows of JSONL and Parquet as documents, in the order of their files' names and of the rows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pyarrow import fs
from pyarrow import parquet as pq

from zenray.batch.inputs.document import (
    MAX_FILE_BYTES,
    Documents,
    InputAccount,
    InputError,
    SourceDocument,
    clean,
    is_below,
    is_wanted,
    safe_path,
)
from zenray.batch.inputs.filesystem import files_below, filesystem_of, joined, reading
from zenray.batch.inputs.spec import JSON_LINES, PARQUET, Columns, InputSpec

_MAX_LINE_BYTES = 64 << 20
_ROWS_AT_ONCE = 64

Row = Mapping[str, Any]


def read_jsonl(spec: InputSpec, account: InputAccount) -> Documents:
    """Documents of one file or of all .jsonl files below a folder, compressed by gzip or not."""
    return _documents(spec, account, JSON_LINES, _json_rows)


def read_parquet(spec: InputSpec, account: InputAccount) -> Documents:
    """Documents of one file or of all .parquet files below a folder. Page checksums are verified."""
    return _documents(spec, account, PARQUET, _parquet_rows)


def _documents(spec: InputSpec, account: InputAccount, endings: tuple[str, ...], rows_of: Any) -> Documents:
    filesystem, root = filesystem_of(spec.location)
    with reading(spec.location):
        files = [path for path in files_below(filesystem, root) if not path or path.endswith(endings)]
    seen: set[str] = set()
    for file in files:
        place = joined(root, file)
        with reading(spec.location):
            for number, row in rows_of(filesystem, place, spec.columns, account):
                seen.update(row if len(seen) < 64 else ())
                document = _document(row, spec, account, f"{place.rpartition('/')[2]}/{number}")
                if document is not None:
                    yield document
    if seen.isdisjoint(spec.columns.text):
        found = f"it has {', '.join(sorted(seen))}" if seen else "it has no rows"
        raise InputError(f"input {spec.location!r} has no column {' or '.join(spec.columns.text)}; {found}")


def _document(row: Row, spec: InputSpec, account: InputAccount, default_path: str) -> SourceDocument | None:
    text = _string(row, spec.columns.text)
    if not text:
        account.skip("no text")
        return None
    given = _string(row, spec.columns.path)
    path: str | None = safe_path(given) if given else default_path
    if path is None:
        account.skip("unsafe path")
        return None
    if given and not (is_below(path, spec.subdirectory) and is_wanted(path, spec.suffixes, account)):
        return None
    if len(text) > MAX_FILE_BYTES:
        account.skip("larger than 1 MB")
        return None
    shown = clean(text.removeprefix("\ufeff"), account)
    if shown is None:
        return None
    repository = _string(row, spec.columns.repository) or account.name
    return SourceDocument(path, shown, repository, _string(row, spec.columns.revision))


def _string(row: Row, names: tuple[str, ...]) -> str:
    """The first of the columns that holds text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, str) and value:
            return value
    return ""


def _json_rows(
    filesystem: fs.FileSystem, path: str, columns: Columns, account: InputAccount
) -> Iterator[tuple[int, Row]]:
    with filesystem.open_input_stream(path, compression="detect") as stream:
        lines = io.BufferedReader(stream, buffer_size=1 << 20)
        number = 0
        while line := lines.readline(_MAX_LINE_BYTES):
            number += 1
            if len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n"):
                raise InputError(f"{path!r} line {number} is longer than {_MAX_LINE_BYTES >> 20} MiB")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                account.skip("not JSON")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                account.skip("no JSON object")


def _parquet_rows(
    filesystem: fs.FileSystem, path: str, columns: Columns, account: InputAccount
) -> Iterator[tuple[int, Row]]:
    with (
        filesystem.open_input_file(path) as file,
        pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False) as parquet,
    ):
        names = parquet.schema_arrow.names
        wanted = (*columns.text, *columns.path, *columns.repository, *columns.revision)
        read = [name for name in names if name in wanted]
        if not set(read) & set(columns.text):
            raise InputError(f"{path!r} has no column {' or '.join(columns.text)}; it has {', '.join(names)}")
        number = 0
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=read, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, row
