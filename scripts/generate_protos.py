"""Generate the Python stubs of `protos/` into `zenray/v1/`, or check that the committed ones match.

    python scripts/generate_protos.py            # write
    python scripts/generate_protos.py --check    # exit 1 and name every stub that differs

The output depends only on the protos and on the version of grpcio-tools, which constraints.txt pins.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = Path("zenray/v1")


def generate(output: Path) -> list[Path]:
    """Write the stubs of every proto below `output`; returns their paths relative to it, sorted."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    well_known = str(files("grpc_tools").joinpath("_proto"))
    flags = [f"-I{PROTOS}", f"-I{well_known}"]
    flags += [f"--{kind}_out={output}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *flags, *sources]) != 0:
        raise SystemExit("protoc refused the protos; its messages are above")
    for path in (output / STUBS).glob("*_pb2_grpc.py"):
        if "Stub" not in path.read_text():
            path.unlink()  # A proto without a service needs no gRPC stub.
    return sorted(path.relative_to(output) for path in (output / STUBS).glob("*_pb2*.py*"))


def committed() -> list[Path]:
    """Stubs in the working tree, relative to the root, sorted."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / STUBS).glob("*_pb2*.py*"))


def differences() -> list[str]:
    """One line for every committed stub that is missing, stale or left over."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = {path: (Path(scratch) / path).read_bytes() for path in generate(Path(scratch))}
    here = {path: (ROOT / path).read_bytes() for path in committed()}
    lines = [f"{path}: missing" for path in sorted(fresh.keys() - here.keys())]
    lines += [f"{path}: no proto generates it" for path in sorted(here.keys() - fresh.keys())]
    both = sorted(fresh.keys() & here.keys())
    return lines + [f"{path}: differs from its proto" for path in both if fresh[path] != here[path]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a stub differs")
    if parser.parse_args().check:
        lines = differences()
        print("\n".join(lines) if lines else "stubs match the protos")
        return 1 if lines else 0
    for stale in committed():
        (ROOT / stale).unlink()
    for path in generate(ROOT):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
