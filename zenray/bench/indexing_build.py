"""One update of an index in a process of its own, its report on standard output.

Imports little: its workers import what it does, and their memory and their start are measured.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from zenray.context.index import build_index

if __name__ == "__main__":
    report = asdict(build_index(sys.argv[1], Path(sys.argv[2])))
    # Workers are done and waited for, so that their time is known.
    print(json.dumps({**report, "cpu_s": sum(os.times()[:4])}))
