"""Environment variables that Ray reads when it starts, in one place and with their reasons.

Importing `zenray.serving` sets them, before any module of it can import Ray; the processes Ray starts
inherit them. A value the user has set is left alone. On an existing cluster each node's own environment
counts: docs/serving.md.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import MutableMapping
from pathlib import Path

RAY_ENVIRONMENT = {
    # Nothing is reported to anybody outside.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own ports listen on every interface and run whatever they are told: they ask for the token that
    # Ray keeps in the user's home. Without this, ray.init decides by itself and prints a warning.
    "RAY_AUTH_MODE": "token",
    # A replica that failed its health checks has nothing to drain; waiting for it only delays its successor.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    # Tasks are not traced: no request is a Ray task.
    "RAY_SERVE_ENABLE_TASK_EVENTS": "0",
    "RAY_task_events_report_interval_ms": "0",
    # Ray's own housekeeping takes 8% of a core of this design at rest, measured, on cores where the engine's
    # threads wait for each other at every layer. These take it to 4.5%; what they delay is a second or less.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_gcs_pull_resource_loads_period_milliseconds": "5000",
    "RAY_event_stats": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_memory_monitor_refresh_ms": "1000",
    # Ray makes every worker give way to anything else on the machine (15); engines must not. Workers of jobs step
    # back by themselves.
    "RAY_worker_niceness": "0",
    # A job that is told to stop ends what it runs before it is killed.
    "RAY_JOB_STOP_WAIT_TIME_S": "15",
    # A replica without a GPU must not see one; this is Ray's future default and silences the notice of it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


def prepare_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets what is not set yet. Where Ray cannot keep its token, this process and its children get their own."""
    for name, value in RAY_ENVIRONMENT.items():
        environment.setdefault(name, value)
    has_token = "RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment
    if environment["RAY_AUTH_MODE"] == "token" and not has_token and not _can_keep_token():
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def put_interpreter_first(environment: MutableMapping[str, str] = os.environ) -> None:
    """The entry point of a submitted job says `python` or `zenray`, and Ray looks for it where the node's PATH says:
    there this interpreter's folder comes first, also when nobody activated its virtual environment."""
    folder, path = str(Path(sys.executable).parent), environment.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != folder:
        environment["PATH"] = f"{folder}{os.pathsep}{path}"


def _can_keep_token() -> bool:
    """Whether Ray finds its token file in the user's home, or can write one there."""
    folder = Path.home() / ".ray"
    return (folder / "auth_token").exists() or os.access(folder if folder.exists() else Path.home(), os.W_OK)


def main() -> None:
    """Prints the variables as a shell takes them, for a node that starts Ray itself."""
    for name, value in RAY_ENVIRONMENT.items():
        print(f"export {name}={shlex.quote(os.environ.get(name, value))}")
    print(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')


if __name__ == "__main__":
    main()
