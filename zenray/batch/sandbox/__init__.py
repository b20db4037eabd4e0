"""A jail for code that a model wrote: `SandboxPool` runs an `Execution` within `Limits` and says how it ended."""

from zenray.batch.sandbox.model import Ending, Execution, ExecutionResult, Limits, SandboxUnavailable
from zenray.batch.sandbox.pool import SandboxPool

__all__ = ["Ending", "Execution", "ExecutionResult", "Limits", "SandboxPool", "SandboxUnavailable"]
