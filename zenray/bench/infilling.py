"""`zenray bench infilling`: how often the missing code comes back, and what each part of the platform adds to it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.batch.sandbox import SandboxPool, SandboxUnavailable
from zenray.bench.document import replace_block, write_blocks
from zenray.bench.infilling_cross_file import PACKAGES
from zenray.bench.infilling_gap import Gap, GapKind
from zenray.bench.infilling_measures import Filling, run_tests, summarise_fillings
from zenray.bench.infilling_run import TREATMENTS, Task, fill_gaps, limits_of
from zenray.bench.infilling_tasks import LIBRARY_PACKAGE, make_gaps
from zenray.bench.machine import CpuClock
from zenray.bench.report import make_report, merge_rows, write_report
from zenray.bench.runs import check_outputs, deliver, model_label, plainly, progress_bar, prompt_limits, shown_config
from zenray.errors import ConfigError

if TYPE_CHECKING:
    from zenray.config import ZenrayConfig

_RUNNING = 8
"""Sequences decoded at once: eight cost little more than one."""
_CACHE_MIB = 1024
"""Holds the prompts of two rounds of the 1.5B model."""
_STEP_TOKENS = 512
"""Nobody waits for a stream here, so prompts are read in large chunks also while others decode."""


ROW_KEYS = ("model", "format", "max_prompt_tokens", "kind", "with_context", "treatment")
"""What tells rows of a report apart."""


@dataclass(frozen=True, slots=True)
class InfillingPlan:
    """`count` gaps of each kind, each filled in every treatment, cross-file gaps with and without the open files."""

    kinds: tuple[GapKind, ...]
    count: int
    seed: int


def run_infilling_bench(
    profile: str,
    file: Path | None,
    overrides: Sequence[str],
    models: Sequence[str],
    plan: InfillingPlan,
    keep: bool,
    json_out: Path | None,
    doc_out: Path | None = None,
) -> None:
    """One engine per model, one after the other. The report at `json_out` grows with every kind of gap.

    With `keep`, the rows of an earlier report there that are not measured again stay. `doc_out` has a block for the
    tables. Raises ConfigError for a configuration that cannot be, and where so many gaps cannot be made.
    """
    from zenray.build import build_engine
    from zenray.config_load import load_config

    check_outputs(json_out, None)
    if doc_out is not None:
        if not doc_out.is_file():
            raise ConfigError(f"--doc {doc_out}: there is no such file")
        replace_block(doc_out.read_text(encoding="utf-8"), "infilling", "")  # raises now rather than in the end
    if importlib.util.find_spec("rapidfuzz") is None:
        raise ConfigError("this benchmark needs rapidfuzz: pip install 'zenray[bench]'")
    configs = [
        _many_at_once(load_config(profile, file, [*overrides, *([f"model.name={name}"] if name else [])]))
        for name in models or [""]
    ]
    before, start_s = CpuClock.read(), time.monotonic()
    is_kept = keep and json_out is not None and json_out.exists()
    rows = json.loads(json_out.read_text(encoding="utf-8"))["results"] if json_out is not None and is_kept else []
    with _sandbox() as (sandbox, why_not), progress_bar() as (bar, job):
        bar.update(job, description="making gaps")
        gaps = {kind: make_gaps(kind, plan.count, plan.seed) for kind in plan.kinds}
        tasks = {kind: _tasks(gaps[kind]) for kind in plan.kinds}
        identity = _identity([gap for kind in plan.kinds for gap in gaps[kind]])
        bar.update(job, total=len(configs) * sum(map(len, tasks.values())))
        for config in configs:
            bar.update(job, description=f"{model_label(config)}: loading")
            engine = build_engine(config)
            for kind in plan.kinds:
                bar.update(job, description=f"{model_label(config)}: {kind}")
                limits = limits_of(kind, prompt_limits(config, engine))
                filled = fill_gaps(engine, limits, tasks[kind], lambda: bar.advance(job))
                labels = {
                    "model": model_label(config),
                    "format": config.model.weight_format,
                    "max_prompt_tokens": limits.max_prompt_tokens,
                }
                rows = merge_rows(rows, [{**labels, **row} for row in _rows(filled, sandbox)], ROW_KEYS)
                report = make_report(
                    "infilling",
                    rows,
                    prompts=identity,
                    settings={**asdict(plan), "functional": why_not, "configs": list(map(shown_config, configs))},
                    bandwidth=None,
                    foreign_cpu_share=before.foreign_share(CpuClock.read(), time.monotonic() - start_s),
                )
                if json_out is not None:
                    write_report(report, json_out)
            engine.shutdown()
    deliver(report, json_out, None)
    if doc_out is not None:
        write_blocks(doc_out, report)


def _many_at_once(config: ZenrayConfig) -> ZenrayConfig:
    """The configuration for throughput; the text is the same."""
    engine = config.engine.model_copy(
        update={
            "max_running_sequences": _RUNNING,
            "max_step_tokens": _STEP_TOKENS,
            "mixed_step_tokens": _STEP_TOKENS,
            "kv_cache_mib": max(config.engine.kv_cache_mib, _CACHE_MIB),
        }
    )
    return plainly(config.model_copy(update={"engine": engine}))


def _tasks(gaps: Sequence[Gap]) -> list[Task]:
    """One treatment of a few prompts, then the next: each finds its prompt in the prefix cache, read by the first."""
    asked = [(gap, with_context) for gap in gaps for with_context in ((False, True) if gap.documents else (False,))]
    return [
        Task(gap, treatment, with_context)
        for start in range(0, len(asked), _RUNNING)
        for treatment in TREATMENTS
        for gap, with_context in asked[start : start + _RUNNING]
    ]


def _rows(filled: Mapping[Task, Filling], sandbox: SandboxPool | None) -> list[dict[str, Any]]:
    passed = run_tests(list(filled.values()), sandbox) if sandbox is not None else {}
    arms: dict[tuple[bool, str], list[Filling]] = {}
    for task, filling in filled.items():
        arms.setdefault((task.with_context, task.treatment.name), []).append(filling)
    return [
        {
            "kind": fillings[0].gap.kind,
            "with_context": with_context,
            "treatment": treatment,
            **summarise_fillings(fillings, passed),
        }
        for (with_context, treatment), fillings in sorted(arms.items(), key=lambda arm: arm[0][0])
    ]


@contextlib.contextmanager
def _sandbox() -> Iterator[tuple[SandboxPool | None, str]]:
    """The jail for tests, or why there is none."""
    try:
        pool = SandboxPool(1)
    except SandboxUnavailable as reason:
        yield None, str(reason)
        return
    with pool:
        yield pool, ""


def _identity(gaps: Sequence[Gap]) -> dict[str, Any]:
    """What `PromptSet.identity` says of other benchmarks' prompts, and where these were cut from."""
    text = json.dumps([asdict(gap) for gap in gaps])
    versions = {}
    for name in (*PACKAGES, LIBRARY_PACKAGE):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "python": platform.python_version(),
        "count": len(gaps),
        "packages": versions,
    }
