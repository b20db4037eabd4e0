"""Which code makes the records: outputs of one job are made by one version of it."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

import zenray

_DECIDING = (
    *("ops", "model", "engine/scoring.py", "engine/row_scorer.py", "engine/prompt_reader.py", "engine/noise.py"),
    *("batch/rows.py", "context/languages"),
    *("batch/teacher_logits/planning", "batch/teacher_logits/records"),
    *("batch/teacher_logits/extract.py", "batch/teacher_logits/columns.py"),
    *("batch/teacher_logits/results/record.py", "batch/teacher_logits/results/statistics.py"),
    *("batch/teacher_logits/reading/fidelity.py", "batch/teacher_logits/reading/mixture.py"),
    "batch/teacher_logits/reading/tail_prior.py",
)
"""What of zenray decides a record's bytes: the kernels and the model, what reduces rows of logits, and what of this
job plans and encodes. Whatever batches, moves or schedules is left out, since it changes none."""

_SOURCES = (".py", ".cpp", ".h")


@cache
def code_digest() -> str:
    """SHA-256 over the names and contents of the deciding sources, as they are where the driver runs."""
    root = Path(zenray.__file__).parent
    paths = [path for name in _DECIDING for path in (root / name, *(root / name).rglob("*"))]
    state = sha256()
    for path in sorted({path for path in paths if path.is_file() and path.suffix in _SOURCES}):
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            state.update(len(part).to_bytes(8, "little"))
            state.update(part)
    return state.hexdigest()
