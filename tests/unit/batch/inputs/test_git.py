"""A repository is read at a commit, whatever its working tree holds and whatever its hooks would do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from zenray.batch.inputs.document import InputAccount, InputError, SourceDocument
from zenray.batch.inputs.read import account_of, read_documents
from zenray.batch.inputs.spec import InputSpec


def git(folder: Path, *arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    people = {f"GIT_{role}_{field}": "a@b" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=True, env={**clean, **people}).stdout.decode().strip()


def read(text: str) -> tuple[list[SourceDocument], InputAccount]:
    spec = InputSpec.parse(text)
    account = account_of(spec)
    return list(read_documents(spec, account)), account


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: `v1` with a link and a program, and one more on `main`."""
    root = tmp_path / "shop"
    (root / "lib").mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    (root / "LICENSE").write_text("MIT\n")
    (root / "lib" / "a.py").write_text("a = 1\n")
    (root / "lib" / "é x.py").write_text("e = 1\n")
    (root / "lib" / "data.bin").write_bytes(b"\0\1")
    (root / "link.py").symlink_to("/etc/passwd")
    (root / "run.py").write_text("run = 1\n")
    (root / "run.py").chmod(0o755)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "one")
    git(root, "tag", "--annotate", "--message", "first", "v1")
    (root / "lib" / "a.py").write_text("a = 2\n")
    git(root, "commit", "--quiet", "--all", "--message", "two")
    return root


def test_a_revision_is_read_from_its_objects(repository: Path) -> None:
    (repository / "lib" / "a.py").write_text("a = 'not committed'\n")
    documents, account = read(f"git+{repository}@v1")

    assert [(each.path, each.licence_file) for each in documents] == [
        ("LICENSE", "LICENSE"),
        ("lib/a.py", "LICENSE"),
        ("lib/é x.py", "LICENSE"),
        ("run.py", "LICENSE"),
    ]
    assert documents[1].text == "a = 1\n"
    assert {each.revision for each in documents} == {git(repository, "rev-parse", "v1^{commit}")} == {account.revision}
    assert account.skipped == {"symbolic link": 1, "binary": 1}
    newest, _ = read(f"git+{repository}#subdirectory=lib&suffixes=a.py")
    assert [each.text for each in newest] == ["a = 2\n"]


def test_an_url_is_fetched_into_the_cache(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tag, branch, whole and short commit; a branch that moved is fetched anew. A URL that git must transport."""
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path / "home"))
    served = tmp_path / "served.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(served))
    commit = git(repository, "rev-parse", "main")
    url = f"file://localhost.{os.getpid()}{served}"  # No local path: the host is not this one's name.
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # Must not lead git astray.
    with pytest.raises(InputError, match="fetch failed"):
        read(f"git+{url}/missing@v1")
    for revision in ("v1", "main", commit, commit[:9]):
        documents, account = read(f"git+{url}@{revision}")
        assert account.revision == (git(repository, "rev-parse", "v1^{commit}") if revision == "v1" else commit)
        assert len(documents) == 4
    (repository / "run.py").write_text("run = 2\n")
    git(repository, "commit", "--quiet", "--all", "--message", "three")
    git(repository, "push", "--quiet", str(served), "main")
    documents, _ = read(f"git+{url}@main")
    assert documents[-1].text == "run = 2\n"


def test_no_hook_runs_and_no_tree_appears(repository: Path, tmp_path: Path) -> None:
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc", "fsmonitor"):
        path = repository / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        path.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(repository / ".git" / "hooks" / "fsmonitor"))
    before = sorted(path for path in repository.rglob("*") if path.is_file())
    read(f"git+{repository}@v1")
    assert sorted(path for path in repository.rglob("*") if path.is_file()) == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("git+{0}@v9", "no revision 'v9'"),
        ("git+{0}@--output=x", "no repository at"),
        ("git+{0}/lib/a.py", "failed"),
        ("git+ext::sh -c id", "failed"),
        ("git+{0}/missing", "failed"),
    ],
)
def test_what_is_no_revision_of_a_repository_is_an_error(repository: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(text.format(repository))
