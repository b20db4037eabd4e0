"""A mirror made of a folder of tiny wheels, and a hub made of a local HTTP server."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from zenray.model import download
from zenray.model.catalog import CatalogEntry

NUM_PARTS = 3
PART_BYTES = 50_000


@pytest.fixture
def model_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("ZENRAY_HOME", str(home))
    return home


@pytest.fixture
def parts() -> list[bytes]:
    generator = random.Random(7)
    return [generator.randbytes(PART_BYTES + i) for i in range(NUM_PARTS)]


def write_wheel(folder: Path, package: str, version: str, members: dict[str, bytes]) -> Path:
    """The least that pip accepts as a wheel."""
    stem = f"{package.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for name, text in texts.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def mirror(tmp_path: Path, parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wheels toy-part1 … toy-part3, the only thing pip can see."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for number, part in enumerate(parts, start=1):
        write_wheel(folder, f"toy-part{number}", "1.0", {f"toy/data/part{number}.bin": part})
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def add_wheel(mirror: Path) -> Callable[..., Path]:
    """Put a wheel into the mirror: `add_wheel(package, version, {member: bytes})`."""
    return lambda package, version, members: write_wheel(mirror, package, version, members)


@pytest.fixture
def packages() -> dict[str, Any]:
    """The mirror as a source of the catalog."""
    return {"kind": "packages", "package": "toy-part{part}", "version": "1.0", "parts": NUM_PARTS, "member": "*.bin"}


@pytest.fixture
def add_entry(model_home: Path, parts: list[bytes], packages: dict[str, Any]) -> Callable[..., CatalogEntry]:
    """Write the toy into the user's catalog: `add_entry(sources=[…], sha256=…)`."""

    def add(**changes: Any) -> CatalogEntry:
        data = b"".join(parts)
        fields = {
            "architecture": "llama",
            "parameters": 1,
            "license": "MIT",
            "context_length": 64,
            "format": "gguf",
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "sources": [packages],
            **changes,
        }
        (model_home / "catalog.yaml").write_text(yaml.safe_dump({"toy": fields}))
        return CatalogEntry.model_validate({"name": "toy", **fields})

    return add


@pytest.fixture
def without_pip(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror, copied from instead of asked through pip: for what happens to a wheel once it is here."""

    def copy(arguments: list[str], **_: Any) -> None:
        package, _, version = arguments[-1].partition("==")
        wheel = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        shutil.copy(mirror / wheel, arguments[arguments.index("-d") + 1])

    monkeypatch.setattr(download, "run_fetch", copy)
    return mirror


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the pulls of this test asked a child process for, in order: its last argument."""
    asked: list[str] = []
    run_fetch = download.run_fetch

    def spy(arguments: list[str], **rest: Any) -> None:
        asked.append(arguments[-1] if arguments[0] == "pip" else arguments[0])
        run_fetch(arguments, **rest)

    monkeypatch.setattr(download, "run_fetch", spy)
    return asked


@dataclass
class FakeHub:
    """Serves one file as the hub does. `cut_after` ends the first download early."""

    data: bytes
    endpoint: str = ""
    silent: bool = False
    cut_after: int | None = None
    ranges: list[str | None] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def hub(parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    state = FakeHub(b"".join(parts))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            state.asked.set()
            if state.silent:
                state.released.wait(60)
                return
            self._headers(200, len(state.data))

        def do_GET(self) -> None:
            if not self.path.endswith("/toy.gguf"):  # the library asks for more than the file
                self.send_error(404)
                return
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            self._headers(206 if wanted else 200, len(state.data) - start, start)
            end = len(state.data)
            if state.cut_after is not None:
                end, state.cut_after = state.cut_after, None
                self.wfile.write(state.data[start:end])
                self.wfile.flush()
                state.asked.set()
                state.released.wait(60)
                return
            self.wfile.write(state.data[start:end])

        def _headers(self, code: int, length: int, start: int = 0) -> None:
            self.send_response(code)
            self.send_header("ETag", f'"{hashlib.sha256(state.data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(length))
            if code == 206:
                total = len(state.data)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", state.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    state.released.set()
    server.shutdown()
    server.server_close()
    thread.join(10)
