"""What a forward pass costs by its rows: measured once per model, device and format, kept, corrected while serving.

Rows are the tokens computed: one per sequence and one per draft token. On most machines the cost is flat for a few
rows (weights are read once) and then grows, with steps where a kernel changes; no formula knows where.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch

from zenray.config import home
from zenray.model.decoder import Decoder
from zenray.model.load import LoadedModel
from zenray.ops.batch import StepBatch

VERSION = 1
"""Of the file's layout and of how it is measured: another one is measured again."""

MEASURED_ROWS: Mapping[int, tuple[int, ...]] = {
    1: (1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 17, 24, 33, 65),
    4: (4, 8, 9, 16, 17, 33, 65),
    16: (16, 17, 33, 65),
}
"""Rows by batch size: dense where drafts are short, and on both sides of 8 and 16, where kernels change."""
PREFILL_TOKENS = 128
CONTEXT_TOKENS = 256
BLOCK_SIZE = 16
MEASURE_BUDGET_S = 5.0
"""Passes over all sizes are repeated for so long, twice at least and `MOST_PASSES` times at most."""
MOST_PASSES = 7

Progress = Callable[[int, int, str], None]


@dataclass
class StepCost:
    """Milliseconds of a forward over a number of sequences and rows, interpolated between measured points.

    `points_ms[batch_size][rows]`; made non-decreasing in rows, whatever the noise. What a step really takes, with
    sampling, a longer context and a machine that drifts, is learned by `correct`.
    """

    points_ms: Mapping[int, Mapping[int, float]]
    prefill_ms_per_token: float = 0.0
    _fit: _Correction = field(default_factory=lambda: _Correction(), repr=False)
    _curves: dict[int, list[float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.points_ms or not all(self.points_ms.values()):
            raise ValueError("a step cost needs at least one measured point per batch size")

    def ms(self, batch_size: int, rows: int) -> float:
        """One step of `batch_size` sequences and `rows` >= batch_size rows."""
        return self.step_ms(batch_size)(rows)

    def step_ms(self, batch_size: int) -> Callable[[int], float]:
        """`ms` of one batch size as a function of the rows, quick to call many times."""
        measured = self._measured_curve(batch_size)
        scale, row_ms = self._fit.scale, self._fit.row_ms

        def corrected_ms(rows: int) -> float:
            while rows >= len(measured):
                measured.append(max(measured[-1], self._interpolated(batch_size, len(measured))))
            return scale * measured[rows] + row_ms * rows

        return corrected_ms

    def correct(self, batch_size: int, rows: int, step_ms: float) -> None:
        """A decode step of that shape took `step_ms`."""
        self._measured_curve(batch_size)
        self.step_ms(batch_size)(rows)  # the curve reaches there
        self._fit.observe(self._curves[batch_size][rows], rows, step_ms)

    def _measured_curve(self, batch_size: int) -> list[float]:
        return self._curves.setdefault(batch_size, [0.0])

    def _interpolated(self, batch_size: int, rows: int) -> float:
        """Linear in rows within a measured batch size, then linear between the two nearest batch sizes."""
        sizes = sorted(self.points_ms)
        above = bisect_left(sizes, batch_size)
        if above == len(sizes) or sizes[above] == batch_size or above == 0:
            return _along(self.points_ms[sizes[min(above, len(sizes) - 1)]], rows)
        low, high = sizes[above - 1], sizes[above]
        share = (batch_size - low) / (high - low)
        return (1 - share) * _along(self.points_ms[low], rows) + share * _along(self.points_ms[high], rows)


def _along(points_ms: Mapping[int, float], rows: int) -> float:
    """Piecewise linear through the points, flat below the first, the last slope (never negative) beyond."""
    at = sorted(points_ms)
    ms = list(accumulate((points_ms[rows_] for rows_ in at), max))
    if rows <= at[0] or len(at) == 1:
        return ms[0] if rows <= at[0] else ms[0] * rows / at[0]
    right = min(bisect_left(at, rows), len(at) - 1)
    left = right - 1
    slope = (ms[right] - ms[left]) / (at[right] - at[left])
    return ms[left] + slope * (rows - at[left])


@dataclass
class _Correction:
    """step_ms = scale * measured_ms + row_ms * rows, by least squares of the relative error.

    Old steps fade; a prior of `PRIOR` steps holds scale at 1 and row_ms at 0 where steps say little. Rows cost what
    the bare forward does not show: choosing a token from a large vocabulary, attention over a long context.
    """

    PRIOR = 8.0
    KEEP = 1 - 1 / 64
    MOST_OFF = 2.0

    scale: float = 1.0
    row_ms: float = 0.0
    _xx: float = 0.0
    _xy: float = 0.0
    _yy: float = 0.0
    _xt: float = 0.0
    _yt: float = 0.0

    def observe(self, measured_ms: float, rows: int, step_ms: float) -> None:
        """A step that took `step_ms` where the table says `measured_ms`. One slow step moves it little."""
        expected_ms = self.scale * measured_ms + self.row_ms * rows
        took_ms = min(max(step_ms, expected_ms / self.MOST_OFF), expected_ms * self.MOST_OFF)
        x, y, target = 1.0, rows / measured_ms, took_ms / measured_ms  # divided by measured_ms: relative error
        self._xx = self._xx * self.KEEP + x * x
        self._xy = self._xy * self.KEEP + x * y
        self._yy = self._yy * self.KEEP + y * y
        self._xt = self._xt * self.KEEP + x * target
        self._yt = self._yt * self.KEEP + y * target
        xx, xt = self._xx + self.PRIOR, self._xt + self.PRIOR
        yy = self._yy + self.PRIOR * y * y
        determinant = xx * yy - self._xy**2
        row_ms = (xx * self._yt - self._xy * xt) / determinant
        self.row_ms = max(0.0, row_ms)
        self.scale = (xt - self.row_ms * self._xy) / xx


def load_or_measure(model: LoadedModel, progress: Progress | None = None) -> StepCost:
    """The model's step cost: from `home()/step_cost/`, else measured (some seconds) and kept there.

    A file that cannot be read, or is of another model, machine, format or version, is measured again.
    """
    identity = _identity(model)
    path = home() / "step_cost" / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.json"
    kept = _read(path, identity)
    if kept is not None:
        return kept
    cost = measure(model.decoder, progress)
    _write(path, identity, cost)
    return cost


def measure(
    decoder: Decoder,
    progress: Progress | None = None,
    clock_s: Callable[[], float] = time.perf_counter,
    measured_rows: Mapping[int, Sequence[int]] = MEASURED_ROWS,
) -> StepCost:
    """Runs the decoder at all sizes in turn, again and again, and takes medians.

    In turn, so that a busy moment of the machine falls on all sizes alike. Uses its own small KV cache.
    """
    context = min(CONTEXT_TOKENS, decoder.config.max_position_embeddings // 2)
    shapes = [(batch_size, rows) for batch_size, sizes in measured_rows.items() for rows in sizes]
    tokens_of_one = max(PREFILL_TOKENS, *(-(-rows // batch_size) for batch_size, rows in shapes))
    num_blocks = max(measured_rows) * -(-(context + tokens_of_one) // BLOCK_SIZE)
    caches = decoder.new_caches(num_blocks, BLOCK_SIZE)
    batches = [_batch(decoder, batch_size, rows, context) for batch_size, rows in shapes]
    prefill = _batch(decoder, 1, min(PREFILL_TOKENS, context), context, num_logit_rows=1)

    def timed_ms(batch: StepBatch) -> float:
        start_s = clock_s()
        decoder.forward(batch, caches)
        if decoder.device.type == "cuda":
            torch.cuda.synchronize(decoder.device)
        return (clock_s() - start_s) * 1000

    for batch in (batches[0], batches[-1], prefill):  # warm up
        timed_ms(batch)
    times_ms: list[list[float]] = [[] for _ in batches]
    prefill_ms: list[float] = []
    start_s = clock_s()
    for pass_number in range(MOST_PASSES):
        if pass_number >= 2 and clock_s() - start_s > MEASURE_BUDGET_S * pass_number / (pass_number + 1):
            break
        if progress is not None:
            progress(pass_number, MOST_PASSES, "measuring steps")
        for batch, taken_ms in zip(batches, times_ms, strict=True):
            taken_ms.append(timed_ms(batch))
        prefill_ms.append(timed_ms(prefill))
    if progress is not None:
        progress(MOST_PASSES, MOST_PASSES, "measuring steps")
    points_ms: dict[int, dict[int, float]] = {}
    for (batch_size, rows), taken_ms in zip(shapes, times_ms, strict=True):
        points_ms.setdefault(batch_size, {})[rows] = statistics.median(taken_ms)
    return StepCost(points_ms, statistics.median(prefill_ms) / prefill.token_ids_T.shape[0])


def _batch(decoder: Decoder, batch_size: int, rows: int, context: int, num_logit_rows: int | None = None) -> StepBatch:
    """`rows` tokens dealt to `batch_size` sequences as evenly as they go, each behind `context` tokens."""
    counts = [rows // batch_size + (index < rows % batch_size) for index in range(batch_size)]
    width = -(-(context + max(counts)) // BLOCK_SIZE)
    context_lens = [context + count for count in counts]
    query_starts = [0, *accumulate(counts)]
    positions = [position for count in counts for position in range(context, context + count)]
    slots = [
        index * width * BLOCK_SIZE + position
        for index, count in enumerate(counts)
        for position in range(context, context + count)
    ]
    generator = torch.Generator().manual_seed(0)
    token_ids_T = torch.randint(decoder.config.vocab_size, (rows,), generator=generator)
    device = decoder.device
    return StepBatch(
        token_ids_T=token_ids_T.to(device),
        positions_T=torch.tensor(positions, device=device),
        query_starts=torch.tensor(query_starts, dtype=torch.int32, device=device),
        context_lens_S=torch.tensor(context_lens, dtype=torch.int32, device=device),
        block_tables_SB=torch.arange(batch_size * width, dtype=torch.int32, device=device).reshape(batch_size, width),
        slots_T=torch.tensor(slots, device=device),
        logit_rows_R=torch.arange(rows - (rows if num_logit_rows is None else num_logit_rows), rows, device=device),
        query_starts_list=query_starts,
        context_lens_list=context_lens,
    )


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
    is_sane = all(0 < ms < float("inf") for sizes in points_ms.values() for ms in sizes.values())
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
