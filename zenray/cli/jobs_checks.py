"""What a submission is refused for before anything is started or fetched."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zenray.errors import InvalidRequest, OutputBusy

if TYPE_CHECKING:
    from zenray.batch.inputs.spec import InputSpec


def parse_input(text: str) -> InputSpec:
    from zenray.batch.inputs.spec import InputSpec

    return InputSpec.parse(text)


def check_input(spec: InputSpec) -> None:
    """Raises InvalidRequest with the nearest name for a local path that is not there."""
    path = Path(spec.location).expanduser()
    if "://" in spec.location or ("@" in spec.location and ":" in spec.location) or path.exists():
        return
    near: list[str] = []
    if path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [each.name for each in path.parent.iterdir()], n=1)
    hint = f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""
    raise InvalidRequest.of("--input", spec.location, f"a file or folder that exists, or a URL{hint}")


def check_output(output: Path) -> None:
    """Raises InvalidRequest for a folder that cannot be written, OutputDamaged for one with things that are no job's,
    OutputBusy for one that another driver writes."""
    from zenray.batch.output.layout import JOB, RUNS
    from zenray.batch.output.store import refuse_foreign_folder
    from zenray.batch.submission.status import read_status

    folder = next(each for each in (output.absolute(), *output.absolute().parents) if each.exists())
    if not folder.is_dir():
        raise InvalidRequest.of("--output", str(output), f"a folder; {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidRequest.of("--output", str(output), f"a folder that can be written; {folder} cannot")
    refuse_foreign_folder(output)
    is_begun = (output / JOB).exists() or (output / RUNS).is_dir()
    if is_begun and (writer := read_status(output).writer) is not None:
        raise OutputBusy(
            f"process {writer.pid} on {writer.host} writes {output}; watch it: zenray jobs status --watch {output}"
        )


def check_there(inputs: Sequence[str], output: Path, working_dir: Path | None) -> None:
    """Paths are the cluster's: whole ones, or within the folder that is uploaded."""
    if not output.is_absolute():
        raise InvalidRequest.of("--output", str(output), "a whole path of the cluster, such as one on its shared disk")
    for text in inputs:
        location = parse_input(text).location
        if "://" in location or Path(location).is_absolute():
            continue
        if working_dir is None:
            raise InvalidRequest.of(
                "--input", text, "a URL or a whole path of the cluster, or a path within --working-dir"
            )
        if not (working_dir / location).exists():
            raise InvalidRequest.of("--input", text, f"a path within {working_dir}")


def cluster_address(given: str | None) -> str | None:
    """The address of the Ray to attach to; None to start one. Raises what `check_address` and `find_cluster` raise."""
    from zenray.serving.cluster import check_address, find_cluster

    if given not in (None, "local", "auto"):
        check_address(given)
        return given
    return None if given == "local" else find_cluster()
