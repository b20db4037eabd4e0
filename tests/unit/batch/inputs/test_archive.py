"""Archives are folders in one file, and may come from somebody who means harm."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from zenray.batch.inputs import archive
from zenray.batch.inputs.document import InputAccount, InputError, SourceDocument
from zenray.batch.inputs.read import account_of, read_documents
from zenray.batch.inputs.spec import InputSpec

FILES = {"toolz-1.0/b.py": b"b = 1\n", "toolz-1.0/a/x.py": b"x = 1\n", "toolz-1.0/LICENSE.txt": b"BSD\n"}


def read(text: str) -> tuple[list[SourceDocument], InputAccount]:
    spec = InputSpec.parse(text)
    account = account_of(spec)
    return list(read_documents(spec, account)), account


def write_tar(path: Path, files: dict[str, bytes], *links: tarfile.TarInfo) -> Path:
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for link in links:
            tar.addfile(link)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_every_packing_gives_the_same_documents(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"toolz-1.0.{ending}"
    (write_zip if ending == "zip" else write_tar)(path, FILES)
    documents, account = read(f"{path}#suffixes=.py")
    assert [(each.path, each.text, each.licence_file) for each in documents] == [
        ("a/x.py", "x = 1\n", "LICENSE.txt"),
        ("b.py", "b = 1\n", "LICENSE.txt"),
    ]
    assert {each.repository for each in documents} == {"toolz-1.0"}
    assert account.revision == f"sha256:{sha256(path.read_bytes()).hexdigest()}"


def test_a_wheel_keeps_its_packages_folder(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "p-1-py3-none-any.whl", {"p/__init__.py": b"p = 1\n", "p/x.py": b"x = 1\n"})
    assert [each.path for each in read(str(path))[0]] == ["p/__init__.py", "p/x.py"]


def test_names_that_lead_out_and_links_are_left_out(tmp_path: Path) -> None:
    link = tarfile.TarInfo("root/link.py")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pipe = tarfile.TarInfo("root/pipe.py")
    pipe.type = tarfile.FIFOTYPE
    hostile = {"../up.py": b"a = 1\n", "/etc/x.py": b"a = 1\n", "root/../../y.py": b"a = 1\n", "root/ok.py": b"a = 1\n"}
    documents, account = read(str(write_tar(tmp_path / "h.tar.gz", hostile, link, pipe)))
    assert [each.path for each in documents] == ["ok.py"]
    assert account.skipped == {"unsafe path": 3, "link or special file": 2}

    path = write_zip(tmp_path / "h.zip", hostile)
    with zipfile.ZipFile(path, "a") as packed:
        info = zipfile.ZipInfo("root/link.py")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    documents, account = read(str(path))
    assert [each.path for each in documents] == ["ok.py"]
    assert account.skipped == {"unsafe path": 3, "link or special file": 1}
    assert list(tmp_path.rglob("*.py")) == []


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "twice.tar"
    with tarfile.open(path, "w") as tar:
        for data in (b"a = 1\n", b"a = 2\n"):
            info = tarfile.TarInfo("d/a.py")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert [each.text for each in read(str(path))[0]] == ["a = 2\n"]


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_a_bomb_ends_the_input_and_not_the_machine(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 5_000_000)
    zeros = {f"b/{number}.py": bytes(2_000_000) for number in range(8)}
    path = tmp_path / f"bomb.{ending}"
    (write_zip if ending == "zip" else write_tar)(path, zeros)
    assert path.stat().st_size < 50_000
    with pytest.raises(InputError, match="unpacks to more than"):
        read(str(path))


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    """tarfile reads the records of a pax header in one piece, as long as the header says."""
    info = tarfile.TarInfo("a.py")
    info.type, info.size = tarfile.XHDTYPE, 1 << 36
    path = tmp_path / "claims.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match="header"):
        read(str(path))


@pytest.mark.parametrize("ending", ["tar.gz", "tar.xz", "zip"])
def test_a_damaged_archive_is_an_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cut.{ending}"
    (write_zip if ending == "zip" else write_tar)(path, {"d/a.py": b"a = 1\n" * 10_000, **FILES})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError):
        read(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(InputError):
        read(str(path))
