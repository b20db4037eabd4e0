"""An index follows its tree: only what changed is read, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from zenray.context.index import BuildReport, Progress, WorkspaceIndex, build_index, store
from zenray.errors import ConfigError, Overloaded

Write = Callable[[Mapping[str, str | bytes]], None]
Build = Callable[[], BuildReport]
Index = Callable[[], WorkspaceIndex]

GREETING = 'def greet(name):\n    """Say hello."""\n    return f"hello {name}"\n'


def texts(index: WorkspaceIndex, *names: str) -> list[str]:
    return [snippet.text for snippet in index.definitions(names, "python", 100)]


def test_only_what_changed_is_read_again(root: Path, write: Write, build: Build, index: Index) -> None:
    write({"a.py": GREETING, "b/c.py": "class Shape:\n    def area(self):\n        return 0\n", "d.py": "x = 1\n"})
    first = build()
    assert (first.num_added, first.num_unchanged, first.read_bytes > 0) == (3, 0, True)
    second = build()
    assert (second.num_added, second.num_unchanged, second.read_bytes) == (0, 3, 0)
    write({"a.py": GREETING.replace("hello", "good day"), "e.py": "def fresh(): ...\n"})
    (root / "d.py").unlink()
    third = build()
    assert (third.num_added, third.num_changed, third.num_removed, third.num_unchanged) == (1, 1, 1, 1)
    assert texts(index(), "greet", "fresh", "Shape", "area") == [
        GREETING.replace("hello", "good day"),
        "def fresh(): ...\n",
        "class Shape:\n    def area(self):\n        return 0\n",
        "    def area(self):\n        return 0\n",
    ]


def test_a_file_written_again_with_the_same_text_is_not_extracted_again(root: Path, write: Write, build: Build) -> None:
    write({"a.py": GREETING})
    build()
    os.utime(root / "a.py", (1, 1))
    again = build()
    assert (again.num_unchanged, again.read_bytes) == (1, 0)


def test_a_file_changed_within_the_clock_s_tick_is_noticed(root: Path, build: Build, index: Index) -> None:
    path = root / "a.py"
    path.write_text("def one(): ...\n")
    build()
    times = path.stat().st_mtime_ns
    path.write_text("def two(): ...\n")
    os.utime(path, ns=(times, times))
    build()
    assert texts(index(), "one", "two") == ["def two(): ...\n"]


def test_what_is_private_ignored_or_no_source_stays_out(root: Path, write: Write, build: Build, index: Index) -> None:
    token = "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0kLmNoPqRsTuVwXyZ"
    write(
        {
            ".zenrayignore": "private/\n",
            ".gitignore": "*.gen.py\n",
            "seen.py": f'def seen():\n    return "{token}"\n',
            "private/hidden.py": "def hidden(): ...\n",
            "x.gen.py": "def generated(): ...\n",
            "node_modules/m.js": "function vendored() {}\n",
            "env/pyvenv.cfg": "",
            "env/lib.py": "def installed(): ...\n",
            ".env.py": "def environment(): ...\n",
            "huge.py": "def huge(): ...\n" + "#" * 1_000_000,
            "binary.py": b"def binary(): ...\n\0",
            "data.json": "{}",
            "script": "#!/usr/bin/env python3\ndef in_script(): ...\n",
            "notes": "def no_code(): ...\n",
        }
    )
    os.symlink(root / "seen.py", root / "link.py")
    os.symlink("/etc", root / "outside")
    os.mkfifo(root / "pipe.py")
    report = build()
    names = ["seen", "hidden", "generated", "vendored", "installed", "environment", "huge", "binary", "in_script"]
    found = texts(index(), *names, "no_code")
    assert found == ['def seen():\n    return "' + "*" * len(token) + '"\n', "def in_script(): ...\n"]
    assert token.encode() not in b"".join(path.read_bytes() for path in (root.parent / "index").iterdir())
    assert report.skipped == {
        "ignored folder": 3,
        "symbolic link": 2,
        "not code": 4,
        "secret": 1,
        "ignored": 1,
        "larger than 1 MB": 1,
        "binary": 1,
        "no regular file": 1,
    }


def test_ignore_rules_written_later_hold_at_once(root: Path, write: Write, build: Build, database: Path) -> None:
    write({"a.py": GREETING})
    build()
    now = [0.0]
    index = WorkspaceIndex(root, database, clock=lambda: now[0])
    assert texts(index, "greet") == [GREETING]
    write({".zenrayignore": "a.py\n"})
    now[0] += 10
    assert texts(index, "greet") == []
    assert index.is_private("a.py")
    assert index.is_private(".env")
    assert not index.is_private("b.py")


def test_names_that_are_not_utf8_and_folders_that_cannot_be_read_do_no_harm(root: Path, build: Build) -> None:
    with open(os.fsencode(root) + b"/\xff.py", "wb") as file:
        file.write(b"x = 1")
    (root / "plain.py").write_text("x = 1\n")
    report = build()
    assert report.num_added == 1
    assert report.skipped == {"name is not UTF-8": 1}


def test_many_files_are_read_by_several_processes_in_a_fixed_order(
    write: Write, root: Path, build: Build, database: Path
) -> None:
    write({f"d{number % 7}/m{number}.py": f"def f{number}(): ...\ndef common(): ...\n" for number in range(500)})
    seen: list[Progress] = []
    report = build_index(root, database, seen.append, num_workers=2)
    assert report.num_added == 500
    assert [each.num_files for each in seen] == list(range(1, 501))
    rows = sqlite3.connect(database).execute("SELECT path FROM files ORDER BY id").fetchall()
    assert rows == sorted(rows, key=lambda row: row[0].split("/"))


@pytest.mark.parametrize("damage", ["header", "middle", "end", "everything", "empty"])
def test_a_damaged_database_is_made_again(
    damage: str, write: Write, build: Build, database: Path, index: Index
) -> None:
    write({f"m{number}.py": GREETING.replace("greet", f"greet{number}") for number in range(200)})
    build()
    data = bytearray(database.read_bytes())
    places = {"header": (0, 64), "middle": (len(data) // 3, len(data) // 2), "everything": (0, len(data))}
    if damage == "end":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data.clear()
    else:
        start, end = places[damage]
        data[start:end] = b"\xa5" * (end - start)
    database.write_bytes(data)
    assert len(texts(index(), "greet1")) <= 1  # whatever a reader still finds, it does not fail
    report = build()
    assert report.num_added == 200
    assert len(texts(index(), "greet7")) == 1


def test_an_index_of_another_version_is_made_again(write: Write, build: Build, database: Path, index: Index) -> None:
    write({"a.py": GREETING})
    build()
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 999999")
    connection.close()
    assert not index().is_built
    assert build().num_added == 1
    assert texts(index(), "greet") == [GREETING]


_KILLED = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zenray.context.index import build, build_index
build._COMMIT_EVERY_S = 0
def stop(progress):
    if progress.num_files == int(sys.argv[3]):
        print("killed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    build_index(sys.argv[1], Path(sys.argv[2]), stop, num_workers=2)
"""


@pytest.mark.parametrize("killed_at", [1, 300, 699])
def test_a_killed_update_leaves_a_usable_index_and_is_resumed(
    killed_at: int, write: Write, root: Path, build: Build, database: Path, index: Index, tmp_path: Path
) -> None:
    write({f"m{number}.py": f"def f{number}(): ...\n" for number in range(700)})
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    ended = subprocess.run([sys.executable, script, root, database, str(killed_at)], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    status = index().status()
    before = status.num_files if status else 0
    assert before < 700
    report = build()
    assert (report.num_unchanged, report.num_added) == (before, 700 - before)
    if killed_at > 1:
        assert before > 0
    assert len(texts(index(), *(f"f{number}" for number in range(10)))) == 10


def test_readers_see_the_old_state_while_another_is_written(
    write: Write, root: Path, build: Build, database: Path, index: Index
) -> None:
    write({"a.py": GREETING})
    build()
    reader = index()
    assert texts(reader, "greet") == [GREETING]
    write({"a.py": GREETING.replace("hello", "moin")})
    seen = []
    build_index(root, database, lambda progress: seen.append(texts(reader, "greet")))
    assert seen == [[GREETING]]
    assert texts(reader, "greet") == [GREETING.replace("hello", "moin")]


def test_there_is_one_writer(root: Path, database: Path, write: Write, build: Build) -> None:
    write({"a.py": GREETING})
    build()
    with FileLock(f"{database}.lock"), pytest.raises(Overloaded, match="another process"):
        build()
    assert build().num_unchanged == 1


def test_an_index_made_or_deleted_later_is_noticed(write: Write, root: Path, build: Build, database: Path) -> None:
    now = [0.0]
    index = WorkspaceIndex(root, database, clock=lambda: now[0])
    assert texts(index, "greet") == []
    write({"a.py": GREETING})
    build()
    now[0] += 10
    assert texts(index, "greet") == [GREETING]
    store.delete(database)
    now[0] += 10
    assert texts(index, "greet") == []


def test_only_its_owner_can_read_an_index(write: Write, build: Build, database: Path) -> None:
    write({"a.py": GREETING})
    build()
    assert database.stat().st_mode & 0o077 == 0
    assert database.parent.stat().st_mode & 0o077 == 0


def test_what_is_no_folder_is_refused_with_what_to_do(tmp_path: Path, database: Path) -> None:
    (tmp_path / "file.py").touch()
    with pytest.raises(ConfigError, match=r"file\.py is a file; name the folder"):
        build_index(tmp_path / "file.py", database)
    with pytest.raises(ConfigError, match="there is no folder"):
        build_index(tmp_path / "absent", database)


def test_many_threads_may_ask_while_the_index_is_made_again(
    write: Write, root: Path, build: Build, database: Path
) -> None:
    write({f"m{number}.py": f"def f{number}(): ...\n" for number in range(50)})
    build()
    now = iter(range(10**9))
    index = WorkspaceIndex(root, database, clock=lambda: 3.0 * next(now))  # every question looks again
    names = [f"f{number}" for number in range(50)]

    def ask(_: int) -> int:
        return len(index.definitions(names, "python", 100)) + index.is_private("m1.py")

    with ThreadPoolExecutor(4) as threads:
        before = list(threads.map(ask, range(100)))
        answers = threads.map(ask, range(200))
        store.delete(database)
        build()
        assert set(before) == {50}
        assert set(answers) <= {0, *range(1, 51)}
        assert set(threads.map(ask, range(20))) == {50}
