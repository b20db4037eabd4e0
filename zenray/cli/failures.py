"""Every error as one red line and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from zenray.cli.console import printable, stderr
from zenray.errors import ConfigError, InvalidRequest, OutputOfAnotherJob, Overloaded, Unavailable, ZenrayError

_IN_WORDS = {"RESOURCE_EXHAUSTED": "the server is busy", "UNAVAILABLE": "the server cannot serve now"}


@dataclass(frozen=True)
class Failure:
    """`lines` go below the first one, a problem each; `hint` says what to do next."""

    message: str
    lines: tuple[str, ...] = ()
    hint: str = ""


def show_failure(error: Exception) -> None:
    """Write `error` to stderr."""
    failure = describe(error)
    console = stderr()
    console.print(Text.assemble(("error: ", "failure"), (printable(failure.message), "red")))
    for line in failure.lines:
        console.print(Text.assemble(("  - ", "failure"), printable(line)))
    if failure.hint:
        console.print(Text(f"  {failure.hint}", "hint"))


def describe(error: Exception) -> Failure:
    """What a person should read about `error`."""
    if type(error).__name__ == "CallFailed":  # by name: grpc is imported only where a call is made
        return _describe_call(error)
    if isinstance(error, InvalidRequest):
        return _several("the request is wrong", tuple(map(str, error.violations)))
    if isinstance(error, Overloaded):
        # What is missing here, such as a tool or a cluster, is not there in a second either.
        return Failure(str(error), hint="" if isinstance(error, Unavailable) else _retry(error.retry_after_ms))
    if isinstance(error, OutputOfAnotherJob):
        hint = "choose another output folder, or go back to what was there"
        return Failure(f"{error.folder} was begun with another job", error.differences, hint)
    if isinstance(error, ZenrayError):
        first, *more = str(error).splitlines() or [type(error).__name__]
        if more and not isinstance(error, ConfigError):
            return Failure(first, tuple(more))
        if more:
            return Failure("the configuration is wrong", (first, *more), "the keys and their types: zenray config show")
        message, _, hint = first.partition("; ") if "zenray " in first.rpartition("; ")[2] else (first, "", "")
        return Failure(message, hint=hint)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{error.strerror or error}")
    return Failure(
        f"unexpected {type(error).__name__}: {error}",
        hint="the traceback, for a report: zenray --debug ... (same command)",
    )


def _several(title: str, problems: tuple[str, ...]) -> Failure:
    return Failure(problems[0]) if len(problems) == 1 else Failure(title, problems)


def _describe_call(error: Exception) -> Failure:
    from zenray.api.client import CallFailed

    assert isinstance(error, CallFailed)
    if error.unreachable:
        return Failure(
            f"no zenray server answers at {error.address}",
            hint="start one: zenray serve      or name another: --address HOST:PORT",
        )
    if error.code == "INVALID_ARGUMENT":
        problems = tuple(_violation(field, description) for field, description in error.violations)
        return _several("the server refuses the request", problems or (error.message,))
    hints = {
        "RESOURCE_EXHAUSTED": _retry(error.retry_ms),
        "UNAVAILABLE": _retry(error.retry_ms) or "how it is doing: zenray status",
        "DEADLINE_EXCEEDED": "allow more time: --deadline-ms",
        "INTERNAL": "the server's own output has the details",
        "UNIMPLEMENTED": "is this a zenray server? its address: --address HOST:PORT",
    }
    message = error.message or "no reason given"
    said = error.code
    if error.retry_ms is not None:  # without it, gRPC itself refused: a message too large is not a full queue
        said = {"RESOURCE_EXHAUSTED": "the server is busy", "UNAVAILABLE": "the server cannot serve now"}.get(
            said, said
        )
    return Failure(f"{said}: {message}", hint=hints.get(error.code, ""))


def _violation(field: str, description: str) -> str:
    return description if description.startswith(field) else f"{field}: {description}"


def _retry(retry_ms: int | None) -> str:
    return "" if retry_ms is None else f"try again in {retry_ms / 1000:.1f} s"
