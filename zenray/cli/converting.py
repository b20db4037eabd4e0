"""Convert a model before the server starts, in a child process: its memory is given back, its progress shown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from zenray.config import WeightFormat, home
from zenray.errors import ModelFileError

_CHILD = """
import json, sys
from pathlib import Path
from zenray.errors import ZenrayError
from zenray.model.convert import converted_folder

def report(done, total, what):
    print(json.dumps([done, total, what]), flush=True)

try:
    converted_folder(Path(sys.argv[1]), sys.argv[2], report)
except ZenrayError as error:
    print(json.dumps(str(error)), flush=True)
    sys.exit(1)
"""


def is_converted(sha256: str, weight_format: WeightFormat) -> bool:
    """Whether a conversion of these bytes is in the cache, by its name; the loader checks its version."""
    return any((home() / "converted").glob(f"{sha256}-{weight_format}-*/model.json"))


def convert(path: Path, weight_format: WeightFormat, progress: Callable[[int, int, str], None]) -> None:
    """Fill the cache of converted weights for `path`. Raises ModelFileError with the child's reason."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), weight_format],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    reason = "the conversion ended without a reason; is there enough memory?"
    try:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if isinstance(message, str):
                reason = message
            else:
                progress(*message)
        if process.wait() != 0:
            raise ModelFileError(reason)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
