"""The protos are the platform's contract: linted, and the committed stubs are theirs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from zenray.engine.request import EngineLoad, FinishReason, Limits, Priority, Sampling
from zenray.v1 import common_pb2, completion_pb2, context_pb2, draft_pb2, verifier_pb2

ROOT = Path(__file__).resolve().parents[3]


def test_committed_stubs_are_those_of_the_protos() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "generate_protos.py"), "--check"]
    ran = subprocess.run(check, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_protos_pass_the_linter() -> None:
    beside_python = shutil.which("buf", path=sysconfig.get_path("scripts"))
    buf = beside_python or shutil.which("buf")
    assert buf, "buf is missing: pip install buf-bin"
    ran = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("message", "domain"), [(common_pb2.Sampling, Sampling), (common_pb2.Limits, Limits), (common_pb2.Load, EngineLoad)]
)
def test_messages_and_domain_objects_have_the_same_fields(message: type, domain: type) -> None:
    assert {field.name for field in message.DESCRIPTOR.fields} == set(domain.__dataclass_fields__)


def test_enums_have_the_names_of_the_domain() -> None:
    assert {f"FINISH_REASON_{reason.value}" for reason in FinishReason} == set(common_pb2.FinishReason.keys()[1:])
    assert {f"PRIORITY_{priority.name}" for priority in Priority} == set(common_pb2.Priority.keys()[1:])


def test_method_names_are_unique_across_services() -> None:
    """Ray Serve's gRPC proxy dispatches by the last part of the path only."""
    files = (completion_pb2, context_pb2, draft_pb2, verifier_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    names = [method.name for service in services for method in service.methods]
    assert len(names) == len(set(names)) > 0
