"""The errors a caller can see, each mapped once to a gRPC status and an HTTP code.

Everything raised on purpose towards a user is one of these. `assert` is for invariants only. The
classes pickle (they cross Ray handles) and import nothing, so every package may raise them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


class ZenrayError(Exception):
    """Base of every error with a meaning for the caller. `str(error)` is safe to show."""

    grpc_status: ClassVar[str] = "INTERNAL"
    http_code: ClassVar[int] = 500

    @property
    def retry_after_ms(self) -> int | None:
        """When a retry makes sense, in milliseconds; None where a retry cannot help."""
        return None


class Quantity(int):
    """A number that is shown with its unit, such as `9000 tokens`."""

    unit: str

    def __new__(cls, value: int, unit: str) -> Quantity:
        quantity = super().__new__(cls, value)
        quantity.unit = unit
        return quantity

    def __reduce__(self) -> tuple[type[Quantity], tuple[int, str]]:
        return type(self), (int(self), self.unit)

    def __repr__(self) -> str:
        return f"{int(self)} {self.unit}"


@dataclass(frozen=True)
class FieldViolation:
    """One bad field: its name as the caller wrote it, the value received, what is allowed."""

    field: str
    value: object
    allowed: str

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > 80:
            shown = f"{shown[:77]}..."
        return f"{self.field} is {shown}; allowed: {self.allowed}"


class InvalidRequest(ZenrayError):
    """The request itself is wrong; sending it again cannot help. Names every bad field."""

    grpc_status = "INVALID_ARGUMENT"
    http_code = 400

    def __init__(self, violations: Sequence[FieldViolation] | FieldViolation) -> None:
        if isinstance(violations, str):  # A DataLoader makes errors of its workers anew of a text, if it can.
            raise TypeError("violations of fields, not a text")
        self.violations = (violations,) if isinstance(violations, FieldViolation) else tuple(violations)
        super().__init__("; ".join(map(str, self.violations)))

    def __reduce__(self) -> tuple[type[InvalidRequest], tuple[tuple[FieldViolation, ...]]]:
        return type(self), (self.violations,)

    @classmethod
    def of(cls, field: str, value: object, allowed: str) -> InvalidRequest:
        """The common case of one bad field."""
        return cls(FieldViolation(field, value, allowed))


class NotFound(ZenrayError):
    """A named thing does not exist; the message offers the nearest names."""

    grpc_status = "NOT_FOUND"
    http_code = 404

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        near = difflib.get_close_matches(name, self.known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"no {kind} named {name!r}; {hint}known: {', '.join(self.known) or 'none'}")

    def __reduce__(self) -> tuple[type[NotFound], tuple[str, str, tuple[str, ...]]]:
        return type(self), (self.kind, self.name, self.known)


class StaleDocument(ZenrayError):
    """A session's document is not in the state a request builds on; `remedy` says what to send first."""

    grpc_status = "FAILED_PRECONDITION"
    http_code = 412

    def __init__(self, path: str, found: str, remedy: str) -> None:
        super().__init__(path, found, remedy)
        self.path, self.found, self.remedy = path, found, remedy

    def __str__(self) -> str:
        return f"document {self.path!r}: {self.found}; {self.remedy}"


class Overloaded(ZenrayError):
    """A bounded queue is full."""

    grpc_status = "RESOURCE_EXHAUSTED"
    http_code = 429

    def __init__(self, message: str, retry_ms: int = 1000) -> None:
        super().__init__(message, retry_ms)
        self.message, self.retry_ms = message, retry_ms

    def __str__(self) -> str:
        return self.message

    @property
    def retry_after_ms(self) -> int:
        return self.retry_ms


class Unavailable(Overloaded):
    """Nothing can serve the request right now: starting, draining, or a replica died under it."""

    grpc_status = "UNAVAILABLE"
    http_code = 503


class DeadlineExceeded(ZenrayError):
    """The deadline passed before anything could be produced."""

    grpc_status = "DEADLINE_EXCEEDED"
    http_code = 504


class ModelFileError(ZenrayError):
    """A model file is missing, truncated, corrupt or of a layout zenray cannot read."""

    grpc_status = "FAILED_PRECONDITION"
    http_code = 412


class ConfigError(ZenrayError):
    """A profile, configuration file or command-line value is wrong."""

    grpc_status = "FAILED_PRECONDITION"
    http_code = 412


class OutputError(ZenrayError):
    """A batch job's output folder cannot be used as asked. What was finished in it stays."""

    grpc_status = "FAILED_PRECONDITION"
    http_code = 412


class OutputBusy(OutputError):
    """Another driver writes the folder, or this one has lost it to another."""


class OutputOfAnotherJob(OutputError):
    """The folder was begun with another job, seed, input, model or parameter: `differences`, a line each."""

    def __init__(self, folder: str, differences: Sequence[str]) -> None:
        super().__init__(folder, differences)
        self.folder, self.differences = folder, tuple(differences)

    def __str__(self) -> str:
        return (
            f"{self.folder} was begun with another job: {'; '.join(self.differences)}. "
            "Choose another output folder, or go back to what was there"
        )


class OutputDamaged(OutputError):
    """Something in the folder is not what was written, or not what the job planned."""


class OutputNotWritten(OutputError):
    """The disk refused (full, quota, I/O error). The shard in question is as if it had never been begun."""
