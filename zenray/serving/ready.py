"""Waiting for the application: what it is doing, when it answers, and why it cannot start."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from zenray.config import ServerSettings
from zenray.errors import ConfigError, DeadlineExceeded, ModelFileError, ZenrayError

Progress = Callable[[str], None]
"""Called with what start-up is doing now, in a few words."""

_POLL_S = 0.1
_PROBE_TIMEOUT_S = 2.0


class Interrupted(ZenrayError):
    """Start-up was asked to stop, and has cleaned up."""


def wait_until_ready(app_name: str, settings: ServerSettings, say: Progress, should_stop: Callable[[], bool]) -> None:
    """Until every replica is up and the door answers SERVING.

    Raises what a replica raised, DeadlineExceeded after server.start_timeout_s, and Interrupted.
    """
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    deadline_s = time.monotonic() + settings.start_timeout_s
    what = ""
    while True:
        if should_stop():
            raise Interrupted("stopped while starting")
        application = serve.status().applications.get(app_name)
        if application is not None:
            if application.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                raise _start_error(application)
            if application.status == ApplicationStatus.RUNNING and _is_serving(settings):
                return
            waiting = [
                name
                for name, deployment in application.deployments.items()
                if not any(state == "RUNNING" for state in deployment.replica_states)
            ]
            now = f"starting {', '.join(waiting)}" if waiting else "opening the doors"
            if now != what and application.deployments:
                what = now
                say(what)
        if time.monotonic() > deadline_s:
            messages = [
                f"{name}: {deployment.message}"
                for name, deployment in (application.deployments.items() if application else ())
                if deployment.message
            ]
            raise DeadlineExceeded(
                f"not ready after server.start_timeout_s = {settings.start_timeout_s:g} s while {what}. "
                + " ".join(messages)
            )
        time.sleep(_POLL_S)


def _is_serving(settings: ServerSettings) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - compared only
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(f"{host}:{settings.grpc_port}", options=options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_PROBE_TIMEOUT_S
            )
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


_RAISED = re.compile(r"zenray\.errors\.(\w+): (.+)")


def _start_error(application: Any) -> ZenrayError:
    """The error a replica raised while starting, as the error it was; else everything Serve says."""
    messages = [application.message, *(deployment.message for deployment in application.deployments.values())]
    for message in messages:
        for name, text in reversed(_RAISED.findall(message or "")):
            return ModelFileError(text) if name == "ModelFileError" else ConfigError(text)
    return ConfigError("the application could not start: " + "\n".join(filter(None, messages)))
