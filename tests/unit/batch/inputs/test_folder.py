"""A local folder gives the documents that may leave it, always in one order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zenray.batch.inputs.document import InputAccount, InputError, SourceDocument
from zenray.batch.inputs.licence import Licences, is_licence_file
from zenray.batch.inputs.read import account_of, read_documents
from zenray.batch.inputs.spec import InputSpec


def read(text: str) -> tuple[list[SourceDocument], InputAccount]:
    spec = InputSpec.parse(text)
    account = account_of(spec)
    return list(read_documents(spec, account)), account


def write(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


FILES = {
    "b.py": b"b = 1\n",
    "a/z.py": b"z = 1\n",
    "a/B.rs": b"fn b() {}\n",
    "LICENSE": b"MIT\n",
    "a/COPYING.txt": b"GPL\n",
    ".gitignore": b"build/\n",
    "build/made.py": b"made = 1\n",
}


def test_documents_come_sorted_with_the_nearest_licence(tmp_path: Path) -> None:
    documents, account = read(str(write(tmp_path / "shop", FILES)))
    assert [(each.path, each.licence_file) for each in documents] == [
        (".gitignore", "LICENSE"),
        ("LICENSE", "LICENSE"),
        ("b.py", "LICENSE"),
        ("a/B.rs", "a/COPYING.txt"),
        ("a/COPYING.txt", "a/COPYING.txt"),
        ("a/z.py", "a/COPYING.txt"),
    ]
    assert {each.repository for each in documents} == {"shop"}
    assert account.skipped == {"ignored folder": 1}


def test_a_subdirectory_keeps_the_paths_and_licences_of_the_whole(tmp_path: Path) -> None:
    files = {**FILES, "a/deep/x.py": b"x = 1\n"}
    documents, _ = read(f"{write(tmp_path, files)}#subdirectory=a/deep&suffixes=.py")
    assert [(each.path, each.licence_file) for each in documents] == [("a/deep/x.py", "a/COPYING.txt")]


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    files = {
        "good.py": b"\xef\xbb\xbfgood = 1\n",
        "latin.py": b"# \xe9\n",
        "binary.py": b"a\0b",
        "huge.py": b"x" * 1_000_001,
        "blank.py": b" \n",
        "id_rsa": b"key",
        "key.py": b'aws = "AKIAIOSFODNN7EXAMPLE"\n',
        "note.md": b"# note\n",
    }
    root = write(tmp_path / "root", files)
    (tmp_path / "outside.py").write_text("outside = 1\n")
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.py")
    documents, account = read(f"{root}#suffixes=.py")

    assert {each.path: each.text for each in documents} == {
        "good.py": "good = 1\n",
        "key.py": 'aws = "********************"\n',
    }
    assert account.skipped == {
        "not UTF-8": 1, "binary": 1, "larger than 1 MB": 1, "empty": 1, "symbolic link": 2, "no regular file": 1,
        "other suffix": 2, "secrets redacted": 1,
    }  # fmt: skip
    assert account.num_passed_over == 9, "a text without its secrets is read"
    assert read(str(root))[1].skipped["file of secrets"] == 1


def test_the_digest_speaks_of_every_document_and_not_of_the_place(tmp_path: Path) -> None:
    here, there = write(tmp_path / "x" / "shop", FILES), write(tmp_path / "y" / "shop", FILES)
    assert read(str(here))[1].to_json() == read(str(there))[1].to_json()
    (there / "b.py").write_text("b = 2\n")
    assert read(str(here))[1].digest != read(str(there))[1].digest


def test_a_folder_that_is_none_is_an_error_and_not_an_empty_input(tmp_path: Path) -> None:
    for wrong in (tmp_path / "nowhere", write(tmp_path, {"file": b"x"}) / "file"):
        with pytest.raises(InputError, match="no folder"):
            read(str(wrong))
    with pytest.raises(InputError, match="no folder"):
        read(f"{tmp_path}#subdirectory=nowhere")


def test_licences_are_known_by_name() -> None:
    assert all(map(is_licence_file, ("LICENSE", "LICENCE.txt", "COPYING.LESSER", "license-mit", "UNLICENSE.md")))
    assert not any(map(is_licence_file, ("licence.py", "licenses.json", "README.md")))
    licences = Licences(["COPYING", "LICENSE-MIT", "LICENSE", "lib/LICENSE.txt"])
    assert licences.nearest("lib/deep/x.py") == "lib/LICENSE.txt"
    assert licences.nearest("liber/x.py") == licences.nearest("x.py") == "LICENSE"
    assert Licences().nearest("a/b.py") == ""


OUTPUTS = {
    "begun": {"runs/lease.json": b"{}", "job.json": b"{}", "shards/part-00000.parquet": b"x"},
    "in the background": {"runs/driver.json": b"{}", "runs/log.txt": b"reading"},
    "complete, without its runs": {"job.json": b"{}", "shards/part-00000.parquet": b"x", "tests/test_b.py": b"c = 1\n"},
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_jobs_output_within_its_input_changes_nothing(tmp_path: Path, kind: str, is_ignored: bool) -> None:
    root = write(tmp_path / "shop", {**FILES, ".gitignore": b"out/\n" if is_ignored else b"build/\n"})
    before = read(str(root))[1].to_json()
    write(root / "out", OUTPUTS[kind])
    assert read(str(root))[1].to_json() == before
