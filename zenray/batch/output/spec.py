"""job.json: the spec of an output, and how it differs from another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from zenray.batch.job import JobSpec
from zenray.batch.output.layout import JOB

_DIFFERENCES_SHOWN = 20


def job_bytes(spec: JobSpec) -> bytes:
    return spec.to_json().encode() + b"\n"


def as_begun(output: Path, spec: JobSpec) -> JobSpec:
    """`spec` with what its inputs passed over as it was when the output was begun: nothing follows from that, and a
    cache that appeared in an input folder must not keep its job from going on."""
    try:
        there = json.loads((output / JOB).read_bytes())
        now = json.loads(spec.to_json())
        is_same = _without_skipped(there) == _without_skipped(now)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return spec  # Whoever opens the output says what is wrong with it.
    return replace(spec, inputs=tuple(there["inputs"])) if is_same else spec


def _without_skipped(spec: dict[str, Any]) -> dict[str, Any]:
    inputs = [{name: value for name, value in each.items() if name != "skipped"} for each in spec["inputs"]]
    return {**spec, "inputs": inputs}


def spec_differences(begun: bytes, spec: JobSpec) -> list[str]:
    """What differs from a job.json, field by field: there, then now."""
    try:
        there = _flat(json.loads(begun))
    except ValueError:
        return [f"its {JOB} cannot be read"]
    now = _flat(json.loads(spec.to_json()))
    absent = object()
    differences = [
        f"{name} is {_shown(there.get(name, absent), absent)} there, {_shown(now.get(name, absent), absent)} now"
        for name in sorted(there.keys() | now.keys())
        if there.get(name, absent) != now.get(name, absent)
    ]
    more = len(differences) - _DIFFERENCES_SHOWN
    return differences[:_DIFFERENCES_SHOWN] + ([f"{more} more fields differ"] if more > 0 else [])


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Leaves by dotted names; an empty list or object is one."""
    if isinstance(value, dict) and value:
        items = [(f"{name}.{key}" if name else key, each) for key, each in value.items()]
    elif isinstance(value, list) and value:
        items = [(f"{name}[{index}]", each) for index, each in enumerate(value)]
    else:
        return {name: value}
    return {leaf: each for key, part in items for leaf, each in _flat(part, key).items()}


def _shown(value: Any, absent: object) -> str:
    return "absent" if value is absent else json.dumps(value, ensure_ascii=False)
