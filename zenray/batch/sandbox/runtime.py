"""What the jail may read beside the system: an interpreter anyone can reach, and packages copied to where anyone can.

An environment in somebody's home is closed to the unprivileged user of the jail. So packages are copied once into a
folder named by what it holds, and an interpreter outside of homes is looked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from zenray.batch.sandbox.model import SandboxUnavailable
from zenray.errors import InvalidRequest

_OLDEST_PYTHON = (3, 11)
_HOME = Path("/var/tmp")  # noqa: S108 - outlives a restart, and every user reaches it; what is ours in it is checked
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_TELL_VERSION = "import sys; print(sys.base_prefix, *sys.version_info[:3])"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python for the jail and the folder its library is in."""

    executable: str
    prefix: str
    version: tuple[int, int, int]


@cache
def find_interpreter() -> Interpreter:
    """Ours where every user can reach it, else another of the machine. Raises SandboxUnavailable with what was seen."""
    ours = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    others = [f"/usr/bin/python3.{sys.version_info.minor}", shutil.which("python3", path="/usr/bin:/usr/local/bin")]
    seen = []
    for candidate in filter(None, [ours, *others]):
        if not os.path.exists(candidate):
            continue
        command = [candidate, "-I", "-c", _TELL_VERSION]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            seen.append(f"{candidate} does not start")
            continue
        prefix, *numbers = told.stdout.split()
        major, minor, patch = map(int, numbers)
        if (major, minor) < _OLDEST_PYTHON:
            seen.append(f"{candidate} is {major}.{minor}")
        elif not (_anyone_reaches(Path(os.path.realpath(candidate))) and _anyone_reaches(Path(prefix))):
            seen.append(f"{candidate} is in a folder that is closed to other users")
        else:
            return Interpreter(os.path.realpath(candidate), prefix, (major, minor, patch))
    raise SandboxUnavailable(
        f"no Python of version 3.11 or newer that an unprivileged user can reach ({'; '.join(seen) or 'none found'}): "
        "apt-get install python3, or install one outside of home folders"
    )


def _anyone_reaches(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])


@cache
def runtime_folder(packages: tuple[str, ...]) -> Path:
    """A folder with the bootstrap and, under `packages`, what `packages` and all they need consist of.

    Raises InvalidRequest for a package that is not installed here, SandboxUnavailable where it cannot be written.
    """
    files = {"bootstrap.py": _BOOTSTRAP.read_bytes()}
    for name in sorted(_with_requirements(packages)):
        files.update(_files_of(distribution(name)))
    digest = sha256(repr(find_interpreter().version).encode())
    for path, content in sorted(files.items()):
        digest.update(f"{len(path)} {path} {len(content)} ".encode() + content)
    home = _private_home()
    folder = home / digest.hexdigest()[:32]
    if not folder.exists():
        _write(folder, files)
    return folder


def _private_home() -> Path:
    """A folder that every user may read and only we may write."""
    home = _HOME / f"zenray-sandbox-{os.geteuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o755)
        found = home.lstat()
    except OSError as error:
        raise SandboxUnavailable(f"{home} cannot be made ({error}); it holds what the jail imports") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise SandboxUnavailable(f"{home} can be written by others: remove it")
    home.chmod(0o755)
    return home


def _write(folder: Path, files: dict[str, bytes]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        for path, content in files.items():
            target = aside / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        # By the interpreter that will read them; hashes instead of times, which copying changes.
        subprocess.run(
            [find_interpreter().executable, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
             "-s", str(aside), "-p", "/runtime", str(aside)],
            capture_output=True, check=False, timeout=300,
        )  # fmt: skip
        for written in [aside, *aside.rglob("*")]:
            written.chmod(0o755 if written.is_dir() else 0o644)
        with contextlib.suppress(OSError):  # Another process was first, with the same content.
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _with_requirements(packages: tuple[str, ...]) -> set[str]:
    """`packages` and what they need on this machine, without optional parts."""
    wanted, found = list(packages), set()
    while wanted:
        name = _normalised(wanted.pop())
        if name in found:
            continue
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:
            if name in map(_normalised, packages):
                raise InvalidRequest.of("packages", name, "packages that are installed") from None
            continue  # Needed on other machines or versions only.
        found.add(name)
        wanted += [match[0] for item in requirements if "extra ==" not in item and (match := _NAME.match(item))]
    return found


_NAME = re.compile(r"[A-Za-z0-9._-]+")


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _files_of(package: Distribution) -> Iterator[tuple[str, bytes]]:
    """Modules and metadata; extension modules only where the jail's interpreter can load them."""
    same_abi = find_interpreter().version[:2] == sys.version_info[:2]
    for file in package.files or ():
        path = PurePosixPath(file)
        if ".." in path.parts or "__pycache__" in path.parts or path.suffix in (".pyc", ".pth"):
            continue
        if path.suffix == ".so" and not same_abi:
            continue
        source = Path(str(package.locate_file(file)))
        if source.is_file():
            yield f"packages/{path}", source.read_bytes()
