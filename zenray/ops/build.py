"""Builds the C++ kernels with the system's compiler at first use and keeps the library.

The library lies in `$ZENRAY_HOME/kernels/KEY` (default ~/.cache/zenray), where KEY hashes the sources,
the flags, the compiler's version and the processor's features: a changed source, compiler or machine
builds anew, and nothing else does. Processes that start together take a file lock, so one builds and
the others wait; the library appears under its final name complete or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "csrc"
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # a vectorised loop and its scalar tail round alike
)
REQUIRED_FEATURES = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "f16c", "fma"})
"""AVX-512 BF16 is used where there is one; `simd.h` does without."""


class KernelsUnavailable(Exception):
    """The compiled kernels cannot be used here; the message says why and what would help."""


def cpu_features() -> frozenset[str]:
    """The processor's features by their Linux names; empty where they cannot be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def find_compiler() -> str:
    """The C++ compiler: $CXX, else the first of c++, g++, clang++. Errors: KernelsUnavailable."""
    chosen = os.environ.get("CXX")
    for name in (chosen,) if chosen else ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path:
            return path
    wanted = f"$CXX is {chosen!r}, which is no program here" if chosen else "no C++ compiler found (c++, g++, clang++)"
    raise KernelsUnavailable(f"{wanted}; install one, such as Debian's g++ or Fedora's gcc-c++")


def library(cache: Path | None = None, extra_flags: tuple[str, ...] = ()) -> Path:
    """The path of the built library, building it if needed. Errors: KernelsUnavailable."""
    missing = sorted(REQUIRED_FEATURES - cpu_features())
    if missing:
        raise KernelsUnavailable(f"this processor lacks {', '.join(missing)}")
    compiler = find_compiler()
    sources = sorted(SOURCES.glob("*.cpp"))
    flags = (*FLAGS, *extra_flags)
    folder = (cache or default_cache()) / _key(compiler, flags, sources)
    path = folder / "zenray_kernels.so"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _compile(compiler, flags, sources, path)
    except OSError as error:
        raise KernelsUnavailable(f"cannot write the kernel cache {folder}: {error}") from error
    return path


def default_cache() -> Path:
    """$ZENRAY_HOME/kernels, else ~/.cache/zenray/kernels."""
    return Path(os.environ.get("ZENRAY_HOME") or Path.home() / ".cache" / "zenray") / "kernels"


def _key(compiler: str, flags: tuple[str, ...], sources: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted([*sources, *SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    features = " ".join(sorted(cpu_features()))
    digest.update("\0".join((*flags, version, platform.machine(), features)).encode())
    return digest.hexdigest()[:24]


def _compile(compiler: str, flags: tuple[str, ...], sources: list[Path], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        built = Path(scratch) / path.name
        command = [compiler, *flags, *map(str, sources), "-o", str(built)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            lines = result.stderr.strip().splitlines()
            first = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
            raise KernelsUnavailable(f"{compiler} failed to build the kernels: {first.strip()}")
        built.replace(path)
