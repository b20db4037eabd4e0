"""What converting and loading a model takes: seconds and resident memory of a process of its own.

    python -m zenray.model.measure_load --model PATH [--formats mixed int8 …]

"convert once" hashes and converts into a fresh folder; "load" maps what is there; "in use" is after a few
decoded tokens, which read every weight. Memory is the peak while converting, then what is resident.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from zenray.config import WeightFormat

_CHILD_FLAG = "--child"


def _measure(model: Path, weight_format: WeightFormat) -> dict[str, float]:
    """In the child: loads, decodes a little, and reports megabytes and seconds."""
    import psutil

    from zenray.model.convert import converted_folder
    from zenray.model.evaluate import step_batch
    from zenray.model.load import load_model

    process = psutil.Process()
    before = process.memory_info().rss
    started = time.perf_counter()
    converted_folder(model, weight_format)
    convert_seconds = time.perf_counter() - started
    loaded = load_model(model, weight_format=weight_format)
    resident, peak = process.memory_info().rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    caches = loaded.decoder.new_caches(1, 16)
    for position in range(4):
        loaded.decoder.forward(step_batch([([1], position)], max_tokens=16), caches)
    return {
        "convert": convert_seconds,
        "load": loaded.info.load_seconds,
        "weights": loaded.info.weight_bytes / 1e6,
        "imported": before / 1e6,
        "loaded": resident / 1e6,
        "peak": peak / 1e6,
        "in_use": process.memory_info().rss / 1e6,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m zenray.model.measure_load", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file or a safetensors folder")
    parser.add_argument("--formats", nargs="+", default=["mixed", "int4", "bf16"], choices=get_args(WeightFormat))
    parser.add_argument(_CHILD_FLAG, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(_measure(options.model, options.formats[0])))
        return
    columns = ("format", "weights", "convert once", "its peak", "load", "after imports", "loaded", "in use")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for weight_format in options.formats:
        with tempfile.TemporaryDirectory() as home:
            first, again = (_run(options.model, weight_format, home) for _ in range(2))
        seconds = (f"{first['convert']:.1f} s", f"{first['peak']:.0f} MB", f"{again['load']:.2f} s")
        memory = [f"{again[key]:.0f} MB" for key in ("imported", "loaded", "in_use")]
        print("| " + " | ".join((weight_format, f"{again['weights']:.0f} MB", *seconds, *memory)) + " |", flush=True)


def _run(model: Path, weight_format: str, home: str) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--model", str(model), "--formats", weight_format, _CHILD_FLAG]
    environment = {**os.environ, "ZENRAY_HOME": home}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
