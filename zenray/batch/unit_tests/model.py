"""The values of the unit-test job, stage by stage. Each is JSON through `codec.to_row` and `codec.from_row`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

FUNCTION = "function"
"""Where a row carries its `MinedFunction`, from the start."""
CANDIDATES = "candidates"
"""Where generation puts `Candidates`."""
MODEL = "model"
"""Where generation puts the `job.ModelIdentity` that answered, also as `to_row` writes it."""
PROMPT_STYLE = "prompt_style"
"""Where generation puts how it asked: `base` or `instruct`."""
SUITE = "suite"
"""Where validation puts `SuiteScores`."""


class SkipReason(Enum):
    """Why a function is not worth testing, or not safely testable alone."""

    NO_SOURCE = "no_source"  # The file does not parse.
    TRIVIAL = "trivial"
    TOO_LONG = "too_long"
    NO_RESULT = "no_result"  # Returns nothing that a test could look at.
    NONDETERMINISTIC = "nondeterministic"
    INPUT_OUTPUT = "input_output"
    TOO_DEPENDENT = "too_dependent"  # Needs more than the standard library and a little of its module.
    TEST_CODE = "test_code"
    GENERATOR_OR_ASYNC = "generator_or_async"
    NESTED = "nested"
    SPECIAL_METHOD = "special_method"  # `__add__` and the like, which nobody calls by name.
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    NOT_CHOSEN = "not_chosen"  # Beyond the job's limit on functions.


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where code comes from. `path` is relative to the repository; lines count from one, `end_line` is included."""

    repository: str
    revision: str
    path: str
    start_line: int
    end_line: int
    licence_file: str = ""


@dataclass(frozen=True, slots=True)
class MinedFunction:
    """A function (or method) and the smallest module in which it runs alone.

    `module_source` is self-contained: imports of the standard library, constants, helpers and the class it belongs to,
    then the function. `import_name` is what a test imports from the module (the class, for a method), `call_name` how
    it calls it (`f`, `Shape.area`). `similar_tests` are existing tests of like code in the same repository.
    """

    row_id: str
    qualified_name: str
    import_name: str
    call_name: str
    signature: str
    docstring: str
    source: str
    module_source: str
    imports: tuple[str, ...]
    class_context: str
    provenance: Provenance
    similar_tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A function that was looked at and left out."""

    qualified_name: str
    repository: str
    path: str
    reason: SkipReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CandidateTest:
    """One test as a module of its own: the imports it needs (never the focal one, which whoever writes the file puts
    before it as `from MODULE import NAME`) and exactly one `def test_…():` without parameters."""

    test_id: str
    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Implementation:
    """An independent re-implementation: `module_source` with the function's body written anew by the model."""

    implementation_id: str
    module_source: str


@dataclass(frozen=True, slots=True)
class RejectedText:
    """A generated text that gave no candidate; `kind` is test or implementation."""

    kind: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """What generation made for one function."""

    tests: tuple[CandidateTest, ...]
    implementations: tuple[Implementation, ...]
    rejected: tuple[RejectedText, ...]
    num_generated_tokens: int
    seeds: tuple[int, ...]


class TestOutcome(Enum):
    """How one run of one test ended."""

    __test__ = False  # pytest would take it for a test class.

    PASSED = "passed"
    FAILED = "failed"  # An AssertionError.
    RAISED = "raised"  # Any other exception.
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"  # Ended by a signal, left early, or tampered with what runs it.
    NOT_RUN = "not_run"


class Verdict(Enum):
    """Why a candidate test was kept or not, in the order the checks run."""

    KEPT = "kept"
    NO_ASSERTION = "no_assertion"  # Asserts nothing that depends on the function.
    FAILS_ON_REFERENCE = "fails_on_reference"
    FLAKY = "flaky"
    LIMIT_EXCEEDED = "limit_exceeded"  # Time, memory, or a crash.
    PASSES_ON_STUB = "passes_on_stub"
    ADDS_NOTHING = "adds_nothing"  # No mutant and no branch that an earlier test has not.
    REDUNDANT = "redundant"  # Left out by minimising the suite.


@dataclass(frozen=True, slots=True)
class TestScores:
    """Everything measured of one candidate. Scores of checks that were not reached are empty."""

    __test__ = False

    test_id: str
    verdict: Verdict
    detail: str  # What the failing check saw, such as the exception; free of addresses, paths and times.
    reference_passes: int  # Of `ValidationSettings.reference_runs`.
    fails_on_stub: bool
    killed_mutants: tuple[str, ...]
    covered_branches: tuple[tuple[int, int], ...]  # (from line, to line) within module_source, as coverage.py has them.
    covered_lines: tuple[int, ...]
    passing_implementations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of the function within `module_source`."""

    mutant_id: str
    operator: str
    line: int
    module_source: str


@dataclass(frozen=True, slots=True)
class SuiteScores:
    """One function's validated suite: every candidate's scores, and what the kept ones are worth together.

    Coverage counts lines and branches of the focal function alone. `agreement` is the share of implementations that
    pass every kept test; None where none could be run. `runs_on_reference` is whether the module could be imported.
    """

    runs_on_reference: bool
    tests: tuple[TestScores, ...]
    num_mutants: int
    num_mutants_killed: int
    surviving_mutants: tuple[str, ...]
    num_lines: int
    num_lines_covered: int
    num_branches: int
    num_branches_covered: int
    num_implementations: int
    agreement: float | None
