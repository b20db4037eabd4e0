"""The stage of the job that runs what the model wrote."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping
from importlib.metadata import version

from zenray.batch.job import Generator
from zenray.batch.rows import Row
from zenray.batch.sandbox import SandboxPool
from zenray.batch.sandbox.runtime import find_interpreter
from zenray.batch.unit_tests.codec import from_row, to_row
from zenray.batch.unit_tests.model import CANDIDATES, FUNCTION, SUITE, Candidates, MinedFunction
from zenray.batch.unit_tests.validation.settings import ValidationSettings
from zenray.batch.unit_tests.validation.validate import validate
from zenray.errors import ConfigError

_TOOLS = ("coverage", "pytest")


def sandbox_versions() -> dict[str, str]:
    """Of what runs tests on this machine, and of the Python that makes their mutants, where that has another grammar.
    Raises SandboxUnavailable where there is no Python for a sandbox."""
    inside, own = find_interpreter().version, platform.python_version_tuple()[:2]
    python = ".".join(map(str, inside))
    if own != tuple(map(str, inside[:2])):
        python += f", mined and mutated by {'.'.join(own)}"
    return {"python": python, **{name: version(name) for name in _TOOLS}}


class ValidateStage:
    """Adds the scores of a row's candidates (see `Stage` in zenray.batch.job). Owns the sandboxes it runs them in."""

    def __init__(
        self, settings: ValidationSettings, num_workers: int | None = None, versions: Mapping[str, str] | None = None
    ) -> None:
        self._settings, self._num_workers, self._versions = settings, num_workers, versions
        self._pool: SandboxPool | None = None

    async def open(self, generator: Generator | None) -> None:
        """Raises SandboxUnavailable where no sandbox holds: nothing that a model wrote runs without one; ConfigError
        where other versions would run it than `versions`, which the job began with on another machine."""
        if self._versions is not None and (found := sandbox_versions()) != self._versions:
            raise ConfigError(f"sandboxes on {socket.gethostname()} have {found}; the job's spec says {self._versions}")
        self._pool = SandboxPool(self._num_workers)

    async def process(self, row: Row) -> Row:
        assert self._pool is not None
        function = from_row(MinedFunction, row[FUNCTION])
        candidates = from_row(Candidates, row[CANDIDATES])
        return {**row, SUITE: to_row(await validate(function, candidates, self._pool, self._settings))}

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
