"""What a forward pass costs by its rows: measured once per model, machine and format, corrected while serving.

Rows are the tokens computed: one per sequence and one per draft token. On most machines the cost is flat for a few
rows (weights are read once) and then grows, with jumps where a kernel changes; no formula knows where.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch

from zenray.config import home
from zenray.model.load import LoadedModel
from zenray.speculative.measure_steps import Progress, measure

VERSION = 1
"""Of the file's layout and of how it is measured: another one is measured again."""

CORRECTION_PRIOR = 8.0
CORRECTION_KEEP = 1 - 1 / 64
MOST_OFF = 2.0
"""A step that takes more or less than this times what was expected counts as if it took that."""
LEAST_SCALE = 0.1


@dataclass
class _Correction:
    """step_ms = scale * measured_ms + row_ms * num_draft_rows, by least squares of the relative error.

    Draft rows cost what the bare forward does not show: choosing a token from a large vocabulary, attention over a
    long context. Old steps fade; a prior of `CORRECTION_PRIOR` steps holds scale at 1 and row_ms at 0.
    """

    scale: float = 1.0
    row_ms: float = 0.0
    _sum_1: float = 0.0
    _sum_rows: float = 0.0
    _sum_rows_squared: float = 0.0
    _sum_took: float = 0.0
    _sum_rows_took: float = 0.0

    def observe(self, measured_ms: float, num_draft_rows: int, step_ms: float) -> None:
        """A step that took `step_ms` where the table says `measured_ms`. One slow step moves it little."""
        expected_ms = self.scale * measured_ms + self.row_ms * num_draft_rows
        took = min(max(step_ms, expected_ms / MOST_OFF), expected_ms * MOST_OFF) / measured_ms
        rows = num_draft_rows / measured_ms
        self._sum_1 = self._sum_1 * CORRECTION_KEEP + 1
        self._sum_rows = self._sum_rows * CORRECTION_KEEP + rows
        self._sum_rows_squared = self._sum_rows_squared * CORRECTION_KEEP + rows * rows
        self._sum_took = self._sum_took * CORRECTION_KEEP + took
        self._sum_rows_took = self._sum_rows_took * CORRECTION_KEEP + rows * took
        weight, weighted_took = self._sum_1 + CORRECTION_PRIOR, self._sum_took + CORRECTION_PRIOR
        rows_squared = self._sum_rows_squared * (1 + CORRECTION_PRIOR / self._sum_1)
        determinant = weight * rows_squared - self._sum_rows**2
        if determinant > 0:
            row_ms = (weight * self._sum_rows_took - self._sum_rows * weighted_took) / determinant
            self.row_ms = max(0.0, row_ms)
        self.scale = max(LEAST_SCALE, (weighted_took - self.row_ms * self._sum_rows) / weight)


@dataclass
class StepCost:
    """Milliseconds of a forward over a number of sequences and rows, interpolated between measured points.

    `points_ms[batch_size][rows]`; non-decreasing in rows, whatever the noise. What a step really takes, with
    sampling, a longer context and a machine that drifts, is learned by `correct`.
    """

    points_ms: Mapping[int, Mapping[int, float]]
    prefill_ms_per_token: float = 0.0
    _fit: _Correction = field(default_factory=_Correction, repr=False, compare=False)
    _curves: dict[int, list[float]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.points_ms or not all(self.points_ms.values()):
            raise ValueError("a step cost needs at least one measured point per batch size")

    def ms(self, batch_size: int, rows: int) -> float:
        """One step of `batch_size` sequences and `rows` >= batch_size rows."""
        return self.step_ms(batch_size)(rows)

    def step_ms(self, batch_size: int) -> Callable[[int], float]:
        """`ms` of one batch size as a function of the rows, quick to call many times."""
        measured = self._curves.setdefault(batch_size, [0.0])
        scale, row_ms = self._fit.scale, self._fit.row_ms

        def corrected_ms(rows: int) -> float:
            while rows >= len(measured):
                measured.append(max(measured[-1], self._interpolated(batch_size, len(measured))))
            return scale * measured[rows] + row_ms * (rows - batch_size)

        return corrected_ms

    def correct(self, batch_size: int, rows: int, step_ms: float) -> None:
        """A decode step of that shape took `step_ms`."""
        measured_ms = max(self._interpolated(batch_size, rows), 1e-6)
        self._fit.observe(measured_ms, rows - batch_size, step_ms)

    def _interpolated(self, batch_size: int, rows: int) -> float:
        """Linear in rows within a measured batch size. Between two of them what more sequences add at the same rows
        is linear, too; steps of fewer rows than the larger one has sequences keep the shape of the smaller one's."""
        sizes = sorted(self.points_ms)
        above = bisect_left(sizes, batch_size)
        if above == len(sizes) or sizes[above] == batch_size or above == 0:
            return _along(self.points_ms[sizes[min(above, len(sizes) - 1)]], rows)
        low, high = sizes[above - 1], sizes[above]
        share = (batch_size - low) / (high - low)
        rows_of_both = max(rows, high)
        added_ms = _along(self.points_ms[high], rows_of_both) - _along(self.points_ms[low], rows_of_both)
        return _along(self.points_ms[low], rows) + share * max(0.0, added_ms)


def _along(points_ms: Mapping[int, float], rows: int) -> float:
    """Piecewise linear through the points, flat below the first, the last slope beyond.

    Fewer rows cannot cost more than more rows did: a busy moment of the machine is all that says so.
    """
    at = sorted(points_ms)
    ms = list(accumulate((points_ms[rows_] for rows_ in reversed(at)), min))[::-1]
    if rows <= at[0] or len(at) == 1:
        return ms[0] if rows <= at[0] else ms[0] * rows / at[0]
    right = min(bisect_left(at, rows), len(at) - 1)
    left = right - 1
    slope = (ms[right] - ms[left]) / (at[right] - at[left])
    return ms[left] + slope * (rows - at[left])


def load_or_measure(model: LoadedModel, progress: Progress | None = None) -> StepCost:
    """The model's step cost: from `home()/step_cost/`, else measured (some seconds) and kept there.

    A file that cannot be read, or is of another model, machine, format or version, is measured again.
    """
    identity = _identity(model)
    path = home() / "step_cost" / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.json"
    kept = _read(path, identity)
    if kept is not None:
        return kept
    times = measure(model.decoder, progress)
    cost = StepCost(times.points_ms, times.prefill_ms_per_token)
    _write(path, identity, cost)
    return cost


def _identity(model: LoadedModel) -> list[str]:
    """Everything the cost depends on."""
    decoder = model.decoder
    device = decoder.device
    return [
        str(VERSION),
        model.info.sha256 or model.info.name,
        repr(decoder.config),
        model.info.weight_format,
        str(decoder.dtype),
        decoder.ops.name,
        decoder.experts.name,
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {_cpu_model()}",
        str(torch.get_num_threads()),
    ]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def _read(path: Path, identity: list[str]) -> StepCost | None:
    """The kept cost, None if it is not there, not whole or not ours."""
    try:
        content = json.loads(path.read_text())
        if content["identity"] != identity:
            return None
        points_ms = {
            int(batch_size): {int(rows): float(ms) for rows, ms in sizes.items()}
            for batch_size, sizes in content["points_ms"].items()
        }
        cost = StepCost(points_ms, float(content["prefill_ms_per_token"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_sane = all(0 < ms < math.inf for sizes in points_ms.values() for ms in sizes.values())
    return cost if is_sane else None


def _write(path: Path, identity: list[str], cost: StepCost) -> None:
    """Under its final name whole or not at all. A disk that takes no file only means measuring again."""
    content = {
        "identity": identity,
        "points_ms": cost.points_ms,
        "prefill_ms_per_token": cost.prefill_ms_per_token,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=1)
        os.replace(aside, path)
    except OSError:
        return
