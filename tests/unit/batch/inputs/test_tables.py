"""Rows are documents, wherever the tables lie."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from zenray.batch.inputs.document import InputAccount, InputError, SourceDocument
from zenray.batch.inputs.read import account_of, read_documents
from zenray.batch.inputs.spec import InputSpec

ROWS = [
    {"content": "b = 1\n", "path": "lib/b.py", "repo_name": "r/x", "revision": "c1", "stars": 3},
    {"content": "a = 1\n", "path": "a.py", "repo_name": "r/y", "revision": "c2", "stars": 4},
    {"content": "c = 1\n", "path": "c.rs", "repo_name": "r/y", "revision": "c2", "stars": 5},
]


def read(text: str) -> tuple[list[SourceDocument], InputAccount]:
    spec = InputSpec.parse(text)
    account = account_of(spec)
    return list(read_documents(spec, account)), account


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, kind: str, rows: list[dict[str, object]], name: str = "part") -> Path:
    path = folder / f"{name}.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2, write_page_checksum=True)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines(rows).encode()))
    else:
        path.write_text(lines(rows))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_rows_come_in_their_order_with_what_their_columns_say(tmp_path: Path, kind: str) -> None:
    documents, account = read(f"{write(tmp_path, kind, ROWS)}#suffixes=.py")
    assert documents == [
        SourceDocument("lib/b.py", "b = 1\n", "r/x", "c1"),
        SourceDocument("a.py", "a = 1\n", "r/y", "c2"),
    ]
    assert account.skipped == {"other suffix": 1}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_folder_of_tables_is_read_in_the_order_of_names(tmp_path: Path, kind: str) -> None:
    for name in ("b", "a"):
        write(tmp_path, kind, [{"body": f"{name} = 1\n"}], name)
    (tmp_path / "notes.txt").write_text("no table")
    documents, _ = read(f"{kind}+{tmp_path}#text=body&name=rows")
    assert [(each.path, each.repository) for each in documents] == [(f"a.{kind}/1", "rows"), (f"b.{kind}/1", "rows")]


def test_rows_that_are_no_documents_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    bad = [
        '{"text": ',
        "[1]",
        "[" * 100_000,
        '{"text": null}',
        '{"text": "\\ud800"}',
        '{"text": "x", "path": "../x"}',
        "",
    ]
    path.write_text("\n".join([*bad, '{"text": "good"}']))
    documents, account = read(str(path))
    assert [(each.path, each.text) for each in documents] == [("bad.jsonl/8", "good")]
    assert account.skipped == {"not JSON": 2, "no JSON object": 1, "no text": 1, "not UTF-8": 1, "unsafe path": 1}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_table_without_the_column_says_what_it_has(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"no column body.*it has .*content"):
        read(f"{write(tmp_path, kind, ROWS)}#text=body")


def test_a_flipped_byte_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", [{"text": "x = 1\n" * 50, "path": f"{number}.py"} for number in range(40)])
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError):
        read(str(path))


def test_urls_are_opened_by_fsspec_where_pyarrow_has_nothing() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/rows.jsonl", lines(ROWS).encode())
    memory.pipe("/shop/code/lib/a.py", b"a = 1\n")
    memory.pipe("/shop/code/LICENSE", b"MIT\n")
    memory.pipe("/shop/code/.netrc", b"secret")
    try:
        assert len(read("memory://shop/rows.jsonl")[0]) == 3
        documents, account = read("memory://shop/code")
        assert [(each.path, each.licence_file) for each in documents] == [
            ("LICENSE", "LICENSE"),
            ("lib/a.py", "LICENSE"),
        ]
        assert account.skipped == {"file of secrets": 1}
        assert account.name == "memory://shop/code"
    finally:
        memory.rm("/shop", recursive=True)


@pytest.mark.parametrize("location", ["jsonl+/nowhere", "/nowhere.parquet", "nosuch://a/b", "memory://nowhere/x"])
def test_what_is_not_there_is_an_error(location: str) -> None:
    with pytest.raises(InputError, match=r"does not exist|cannot be opened"):
        read(location)


def test_a_jobs_shards_within_its_input_are_no_input(tmp_path: Path) -> None:
    write(tmp_path, "parquet", [{"text": "a = 1\n"}])
    before = read(f"parquet+{tmp_path}")[1].to_json()
    for folder in ("runs", "shards"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    (tmp_path / "out" / "runs" / "lease.json").write_text("{}")
    write(tmp_path / "out" / "shards", "parquet", [{"text": "b = 1\n"}], "part-00000")
    assert read(f"parquet+{tmp_path}")[1].to_json() == before
