"""Planted tests of which everything is known beforehand, validated in the real sandbox."""

from __future__ import annotations

import asyncio
import json
import subprocess
import textwrap
from collections.abc import Iterator

import pytest

from zenray.batch.job import RowError
from zenray.batch.rows import canonical_json
from zenray.batch.sandbox import Ending, Execution, ExecutionResult, Limits, SandboxPool, SandboxUnavailable
from zenray.batch.sandbox.runtime import find_interpreter
from zenray.batch.unit_tests.codec import from_row, to_row
from zenray.batch.unit_tests.model import (
    CANDIDATES,
    FUNCTION,
    SUITE,
    Candidates,
    CandidateTest,
    Implementation,
    MinedFunction,
    Provenance,
    SuiteScores,
    TestOutcome,
    TestScores,
    Verdict,
)
from zenray.batch.unit_tests.validation.execution import ENDED_ITS_RUNNER, Plan, Run, execute, run_suite
from zenray.batch.unit_tests.validation.focal_function import FunctionText
from zenray.batch.unit_tests.validation.mutants import make_mutants
from zenray.batch.unit_tests.validation.settings import ValidationSettings
from zenray.batch.unit_tests.validation.validate import validate
from zenray.batch.unit_tests.validation.validate_stage import ValidateStage, sandbox_versions
from zenray.errors import ConfigError

SOURCE = '''\
import re

_num_calls = 0


def _is_word(text, least=1):
    return len(text) >= least


def shorten(text, most=2):
    """The first different words of a text."""
    global _num_calls
    _num_calls += 1
    if most < 0:
        raise ValueError(f"most is {most}")
    kept = []
    for word in re.split(r"\\W+", text) if isinstance(text, str) else text:
        if _is_word(word) and word not in kept:
            kept.append(word)
    return kept[:most]
'''
SETTINGS = ValidationSettings(max_mutants=40, test_cpu_s=0.5, test_wall_s=3)
ORDER_OF_A_SET = subprocess.run(
    [find_interpreter().executable, "-c", "print(list({'ab', 'cd', 'ef', 'gh', 'ij', 'kl'}))"],
    env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True,
).stdout.strip()  # fmt: skip

KEPT = {
    "two_words": "assert shorten('a b c') == ['a', 'b']",
    "repeated": "assert shorten('a a b') == ['a', 'b']",
    "negative": "with pytest.raises(ValueError, match='-1'):\n    shorten('a', -1)",
    "none": "assert shorten('a', most=0) == []",
}
REJECTED = {
    "no_assertion": ("shorten('a b')", Verdict.NO_ASSERTION, "asserts nothing"),
    "wrong": ("assert shorten('a b c') == ['a']", Verdict.FAILS_ON_REFERENCE, "line 11: AssertionError"),
    "raises": ("assert shorten(3)", Verdict.FAILS_ON_REFERENCE, "line 11: TypeError: 'int' object is not iterable"),
    "exits": ("assert shorten('a') == sys.exit()", Verdict.FAILS_ON_REFERENCE, "line 11: SystemExit"),
    "interrupts": (
        "assert shorten('a') == signal.raise_signal(signal.SIGINT)",
        Verdict.FAILS_ON_REFERENCE,
        "line 11: KeyboardInterrupt",
    ),
    "skips": ("pytest.skip('not today')\nassert shorten('a') == ['a']", Verdict.FAILS_ON_REFERENCE, "skips itself"),
    "returns": ("assert shorten('a') == ['a']\nreturn 1", Verdict.FAILS_ON_REFERENCE, "returns something"),
    "has_an_address": ("assert shorten('a') == 1, object()", Verdict.FAILS_ON_REFERENCE, "<object object at 0x…>"),
    "order_of_a_set": (
        f"assert shorten({{'ab', 'cd', 'ef', 'gh', 'ij', 'kl'}}, 6) == {ORDER_OF_A_SET}",
        Verdict.FLAKY,
        "with hash seed",
    ),
    "random": (
        "assert shorten('a') == ['a']\nassert uuid.uuid4().int % 4 or random.random() < 0.5 or os.urandom(1)[0] % 4",
        None,  # Passes, or is flaky: the same every time, which another test shows.
        "",
    ),
    "seeds_itself": (
        "random.seed()\nchance = random.random(), random.Random().random(), tempfile.mktemp()\n"
        "assert shorten('a') == chance, chance",
        Verdict.FAILS_ON_REFERENCE,
        "AssertionError",
    ),
    "counts_calls": ("assert shorten('a') == ['a']\nassert focal._num_calls == 1", Verdict.FLAKY, "depends on what"),
    "endless": ("assert shorten('a') == ['a']\nwhile True: pass", Verdict.LIMIT_EXCEEDED, "takes too long"),
    "deaf": (
        "signal.signal(signal.SIGPROF, signal.SIG_IGN)\nassert shorten('a') == ['a']\nwhile True: pass",
        Verdict.LIMIT_EXCEEDED,
        "takes too long",
    ),
    "sleeps": ("assert shorten('a') == ['a']\ntime.sleep(1000)", Verdict.LIMIT_EXCEEDED, "takes too long"),
    "large": ("assert shorten('a' * 2**31) == ['a']", Verdict.LIMIT_EXCEEDED, "MemoryError"),
    "crashes": ("assert shorten('a') == ctypes.string_at(0)", Verdict.LIMIT_EXCEEDED, "ended by SIGSEGV"),
    "leaves": ("assert shorten('a') == ['a']\nos._exit(0)", Verdict.LIMIT_EXCEEDED, "left the process before its end"),
    "kills_its_parent": (
        "assert shorten('a') == ['a']\nos.kill(os.getppid(), signal.SIGKILL)",
        Verdict.LIMIT_EXCEEDED,
        "ended what runs it",
    ),
    "kills_everybody": (
        "assert shorten('a') == ['a']\nos.kill(-1, signal.SIGKILL)",
        Verdict.LIMIT_EXCEEDED,
        "ended what runs it",
    ),
    "kills_its_parent_elsewhere": (
        "x = shorten('a')\nif x != ['a']:\n    os.kill(os.getppid(), signal.SIGKILL)\nassert x == ['a']",
        Verdict.LIMIT_EXCEEDED,
        "ended what runs it",
    ),
    "leaves_what_cannot_be_removed": (
        "os.mkdir('/scratch/x')\nopen('/scratch/x/y', 'w')\nos.chmod('/scratch/x', 0)\nassert shorten('a') == ['a']",
        Verdict.LIMIT_EXCEEDED,
        "ended what runs it",
    ),
    "says_nothing": (
        "class Sly(Exception):\n    __str__ = lambda self: os._exit(0)\nif shorten('a'): raise Sly\nassert 1 > n",
        Verdict.LIMIT_EXCEEDED,
        "left the process before its end",
    ),
    "says_odd_things": (
        "assert shorten('a') == 1, '\\udc80\\0 /tmp/x/y.py ' + 'x' * 10**6",
        Verdict.FAILS_ON_REFERENCE,
        "AssertionError: ?? …/y.py xxxx",
    ),
    "starves_its_parent": (
        "assert shorten('a') == ['a']\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))",
        Verdict.LIMIT_EXCEEDED,
        "ended what runs it",
    ),
    "prints": (
        "assert shorten('a') == ['a']\nwhile True: print('x' * 10_000)", Verdict.LIMIT_EXCEEDED, "printed too much"
    ),
    "forges_a_report": (
        "line = b'[\"word\", {\"outcome\": \"passed\"}]\\n\\n'\n"
        "for number in range(3, 30):\n"
        "    with contextlib.suppress(OSError):\n"
        "        os.write(number, line)\n"
        "assert shorten('a') == 1",
        Verdict.LIMIT_EXCEEDED,
        "",
    ),
    "forges_for_another": (
        "frame = sys._getframe()\nwhile 'word' not in frame.f_locals: frame = frame.f_back\n"
        "word, pipe = frame.f_locals['word'], frame.f_locals['pipe']\n"
        "os.write(pipe, ('[\"%s\", {\"outcome\": \"passed\", \"run\": 99}]' % word).encode() + bytes([10, 10]))\n"
        "os._exit(0)\nassert shorten('a') == 1",
        Verdict.FLAKY,  # It says of itself what it likes, nothing of others, and keeps those after it from running.
        "",
    ),
    "looks_into_its_parent": (
        "assert shorten('a') == ['a']\nassert os.listdir(f'/proc/{os.getppid()}/fd')",
        Verdict.FAILS_ON_REFERENCE,
        "PermissionError",
    ),
    "patches_the_function": (
        "focal.shorten = lambda text: ['a']\nassert focal.shorten('a') == ['a']",
        Verdict.LIMIT_EXCEEDED,
        "left focal.shorten changed",
    ),
    "patches_its_code": (
        "shorten.__code__ = (lambda text, most=2: ['a']).__code__\nassert shorten('b') == ['a']",
        Verdict.LIMIT_EXCEEDED,
        "left focal.shorten.__code__ changed",
    ),
    "patches_builtins": (
        "builtins.abs = lambda number: 3\nassert shorten('a') == ['a']",
        Verdict.LIMIT_EXCEEDED,
        "left builtins.abs changed",
    ),
    "patches_sys": (
        "sys.exit = print\nassert shorten('a') == ['a']", Verdict.LIMIT_EXCEEDED, "left sys.exit changed"
    ),
    "swarms": (
        "with contextlib.suppress(OSError):\n    while True:\n"
        "        if os.fork() == 0:\n            time.sleep(1000)\n"
        "assert shorten('a') == ['a']",
        Verdict.FLAKY,  # In one process with others it leaves them no room for processes of theirs.
        "changes what",
    ),
    "changes_the_process": (
        "os.environ['HOME'] = '/'\nassert shorten('a') == ['a']", Verdict.LIMIT_EXCEEDED, "left os.environ changed"
    ),
    "looks_away": ("x = shorten('a')\ny = 3\nassert y == len('abc')", Verdict.PASSES_ON_STUB, "whatever"),
    "repeats": ("assert shorten('a b c') == list('a' + 'b')", Verdict.ADDS_NOTHING, "tests before it"),
}  # fmt: skip
HARMLESS = {
    "splits": "assert shorten('a') == ['a']\nif os.fork() == 0:\n    time.sleep(1000)",
    "both_go_on": "os.fork()\nassert shorten('a') == ['a']",
    "litters": "open('x', 'w').write('x')\nos.makedirs('/scratch/a/b')\nassert shorten('a') == ['a']",
}
"""They pass, and what they leave behind nobody else sees."""

IMPORTS = (
    "import builtins, contextlib, ctypes, os, random\nimport resource\nimport signal\nimport sys\n"
    "import tempfile, time\nimport uuid\nimport pytest\nimport focal\n\n"
)


def as_test(name: str, body: str) -> CandidateTest:
    return CandidateTest(name, f"test_{name}", f"{IMPORTS}def test_{name}():\n{textwrap.indent(body, '    ')}\n")


def as_function(source: str = SOURCE, name: str = "shorten") -> MinedFunction:
    provenance = Provenance("repository", "1", "path.py", 1, 2)
    return MinedFunction("row", name, name, name, "", "", "", source, (), "", provenance)


def as_candidates(bodies: dict[str, str], *implementations: str) -> Candidates:
    tests = tuple(as_test(name, body) for name, body in bodies.items())
    others = tuple(Implementation(f"i{index}", source) for index, source in enumerate(implementations))
    return Candidates(tests, others, (), 0, ())


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def scores(pool: SandboxPool) -> list[TestScores]:
    """Of the bad among the good; those that end what runs them with fewer others, which are all run again alone."""
    bodies = {name: body for name, (body, _, _) in REJECTED.items()}
    repeats = {"repeats": bodies.pop("repeats")}
    ending = {name: bodies.pop(name) for name, (_, _, detail) in REJECTED.items() if detail == ENDED_ITS_RUNNER}

    async def both() -> list[SuiteScores]:
        suites = ({**bodies, **KEPT, **HARMLESS, **repeats}, {**ending, **KEPT})
        every = (validate(as_function(), as_candidates(suite), pool, SETTINGS) for suite in suites)
        return list(await asyncio.gather(*every))

    return [test for suite in asyncio.run(both()) for test in suite.tests]


@pytest.fixture(scope="module")
def good_scores(pool: SandboxPool) -> SuiteScores:
    """Of the good ones alone, with re-implementations that do and do not agree."""
    agreeing = SOURCE.replace("word not in kept", "kept.count(word) == 0")
    differing = SOURCE.replace("kept[:most]", "kept[:2]")
    broken = "import nothing_of_the_kind\n" + SOURCE
    return asyncio.run(validate(as_function(), as_candidates(KEPT, agreeing, differing, broken), pool, SETTINGS))


@pytest.mark.parametrize("name", REJECTED)
def test_each_planted_test_is_rejected_for_what_is_wrong_with_it(name: str, scores: list[TestScores]) -> None:
    _, verdict, detail = REJECTED[name]
    (found,) = (test for test in scores if test.test_id == name)
    assert verdict in (found.verdict, None)
    assert detail in found.detail


def test_bad_tests_take_nothing_from_good_ones(scores: list[TestScores], good_scores: SuiteScores) -> None:
    of_good = {test.test_id: test for test in good_scores.tests}
    among_bad = [test for test in scores if test.test_id in KEPT]
    assert {test.verdict for test in of_good.values()} == {Verdict.KEPT}
    assert len(among_bad) == 2 * len(of_good)
    for test in among_bad:
        alone = of_good[test.test_id]
        assert (test.verdict, test.reference_passes) == (Verdict.KEPT, 5)
        assert (test.killed_mutants, test.covered_branches) == (alone.killed_mutants, alone.covered_branches)


def test_what_a_test_leaves_behind_is_cleared_away(scores: list[TestScores]) -> None:
    found = {test.test_id: test for test in scores if test.test_id in HARMLESS}
    for name, test in found.items():
        assert test.reference_passes == 5, name
        assert test.killed_mutants == found["splits"].killed_mutants, name
        assert test.verdict in (Verdict.KEPT, Verdict.ADDS_NOTHING, Verdict.REDUNDANT), name


def test_implementations_agree_or_not(good_scores: SuiteScores) -> None:
    assert good_scores.num_implementations == 3
    assert good_scores.agreement == pytest.approx(1 / 3)
    passing = {test.test_id: test.passing_implementations for test in good_scores.tests}
    assert passing == {
        "two_words": ("i0", "i1"),
        "repeated": ("i0", "i1"),
        "negative": ("i0", "i1"),
        "none": ("i0",),
    }


def test_scores_are_a_function_of_the_row(pool: SandboxPool) -> None:
    """With random tests, tests that crash, and others beside them on a busy pool."""
    names = ["random", "seeds_itself", "counts_calls", "order_of_a_set", "leaves", "has_an_address"]
    bodies = {**{name: REJECTED[name][0] for name in names}, **KEPT}

    async def several() -> list[SuiteScores]:
        once = (validate(as_function(), as_candidates(bodies), pool, SETTINGS) for _ in range(2))
        return list(await asyncio.gather(*once))

    assert len({canonical_json(to_row(scores)) for scores in asyncio.run(several())}) == 1


def test_plain_pytest_sees_the_same_mutants_die(pool: SandboxPool, good_scores: SuiteScores) -> None:
    mutants = make_mutants(SOURCE, "shorten", SETTINGS.max_mutants)
    assert good_scores.num_mutants == len(mutants) > 15
    entry = "import pytest, sys\nsys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'test_all.py']))\n"

    async def exit_codes() -> list[int | None]:
        runs = (
            pool.run(
                Execution(
                    {"focal.py": source, "test_all.py": whole_suite(), "entry.py": entry}, "entry.py",
                    packages=("coverage", "pytest"), limits=Limits(wall_s=60, cpu_s=30),
                )
            )
            for source in (SOURCE, *(mutant.module_source for mutant in mutants))
        )  # fmt: skip
        return [result.exit_code for result in await asyncio.gather(*runs)]

    on_reference, *on_mutants = asyncio.run(exit_codes())
    assert on_reference == 0
    survivors = tuple(mutant.mutant_id for mutant, code in zip(mutants, on_mutants, strict=True) if code == 0)
    assert survivors == good_scores.surviving_mutants
    assert good_scores.num_mutants_killed == len(mutants) - len(survivors)


def test_plain_coverage_sees_the_same_lines_and_branches(pool: SandboxPool, good_scores: SuiteScores) -> None:
    entry = textwrap.dedent("""\
        import os, runpy, sys
        from coverage.cmdline import main
        assert main(["run", "--branch", "--include=focal.py", "-m", "pytest", "-q", "test_all.py"]) == 0
        assert main(["json", "-q", "-o", "told.json"]) == 0
        os.write(int(os.environ["ZENRAY_REPORT_FD"]), open("told.json", "rb").read())
        """)
    files = {"focal.py": SOURCE, "test_all.py": whole_suite(), "entry.py": entry}
    execution = Execution(files, "entry.py", packages=("coverage", "pytest"), limits=Limits(wall_s=60, cpu_s=30))
    result = pool.run_blocking(execution)
    assert result.exited_cleanly, result.stderr_tail.decode()
    (told,) = json.loads(result.report)["files"].values()
    text = FunctionText.find(SOURCE, "shorten")
    assert text is not None
    lines = range(text.body_lines[0], text.body_lines[1] + 1)
    branches = {tuple(arc) for arc in told["executed_branches"] if arc[0] in lines}
    assert {branch for test in good_scores.tests for branch in test.covered_branches} == branches
    assert good_scores.num_branches_covered == len(branches) > 0
    assert good_scores.num_branches == len(branches) + sum(arc[0] in lines for arc in told["missing_branches"])
    assert good_scores.num_lines_covered == sum(line in lines for line in told["executed_lines"])
    assert good_scores.num_lines == good_scores.num_lines_covered + sum(line in lines for line in told["missing_lines"])


def whole_suite() -> str:
    tests = (as_test(name, body).source.removeprefix(IMPORTS) for name, body in KEPT.items())
    return "from focal import shorten\n" + IMPORTS + "\n".join(tests)


def test_a_module_that_cannot_be_imported_is_said_to(pool: SandboxPool) -> None:
    function = as_function("import nothing_of_the_kind\n" + SOURCE)
    scores = asyncio.run(validate(function, as_candidates(KEPT), pool, SETTINGS))
    assert not scores.runs_on_reference
    assert {test.verdict for test in scores.tests} == {Verdict.FAILS_ON_REFERENCE}
    assert {test.detail for test in scores.tests} == {
        "import: ModuleNotFoundError: No module named 'nothing_of_the_kind'"
    }
    nothing = asyncio.run(validate(as_function(), as_candidates({}), pool, SETTINGS))
    assert nothing.runs_on_reference
    assert (nothing.num_mutants, nothing.num_lines, nothing.agreement) == (0, 0, None)


def test_methods_are_mutated_and_measured_in_their_class(pool: SandboxPool) -> None:
    source = textwrap.dedent("""\
        class Shape:
            def __init__(self, width):
                self.width = width

            def area(self, height=1):
                if height < 0:
                    return None
                return self.width * height
        """)
    test = CandidateTest("a", "test_a", "def test_a():\n    assert Shape(2).area(3) == 6\n")
    function = MinedFunction(
        "row", "Shape.area", "Shape", "Shape.area", "", "", "", source, (), "", Provenance("r", "1", "p", 1, 2)
    )
    scores = asyncio.run(validate(function, Candidates((test,), (), (), 0, ()), pool, SETTINGS))
    (found,) = scores.tests
    assert found.verdict is Verdict.KEPT
    assert (found.covered_lines, found.covered_branches) == ((6, 8), ((6, 8),))
    assert (scores.num_lines, scores.num_branches) == (3, 2)
    assert "8.15-arithmetic" in found.killed_mutants


def test_a_function_on_one_line_has_no_branches(pool: SandboxPool) -> None:
    scores = asyncio.run(
        validate(
            as_function("def sign(x): return x > 0\n", "sign"), as_candidates({"a": "assert sign(1)"}), pool, SETTINGS
        )
    )
    assert (scores.num_lines, scores.num_lines_covered, scores.num_branches) == (1, 1, 0)


def test_endless_mutants_count_as_noticed_and_cost_little(pool: SandboxPool) -> None:
    source = "def count(n):\n    i = 0\n    while i < n:\n        i += 1\n    return i\n"
    bodies = {f"of_{n}": f"assert count({n}) == {n}" for n in range(1, 7)}
    function = as_function(source, "count")
    scores = asyncio.run(validate(function, as_candidates(bodies), pool, SETTINGS))
    assert [test.verdict for test in scores.tests].count(Verdict.KEPT) >= 1
    endless = next(mutant for mutant in make_mutants(source, "count") if mutant.module_source.count("i -= 1"))
    assert [endless.mutant_id in test.killed_mutants for test in scores.tests] == [True] * 2 + [False] * 4


def test_tests_that_are_worth_nothing_hide_no_endless_mutant(pool: SandboxPool) -> None:
    source = "def count(n):\n    i = 0\n    while i < n:\n        i += 1\n    return i\n"
    bodies = {f"away_{n}": f"count({n})\nx = 'a' * {n}\nassert len(x) == {n}" for n in (1, 2)}
    bodies["looks"] = "assert count(3) == 3"
    same = source.replace("i < n", "n > i").replace("return i", "return i if n > 2 else count(3 - n)")
    candidates = as_candidates(bodies, source.replace("i < n", "i < n or n < 3"), same)
    scores = asyncio.run(validate(as_function(source, "count"), candidates, pool, SETTINGS))
    assert [test.verdict for test in scores.tests] == [Verdict.PASSES_ON_STUB] * 2 + [Verdict.KEPT]
    endless = next(mutant for mutant in make_mutants(source, "count") if mutant.module_source.count("i -= 1"))
    assert endless.mutant_id in scores.tests[2].killed_mutants and endless.mutant_id not in scores.surviving_mutants
    assert "i0" in scores.tests[2].passing_implementations and scores.agreement == 1


def test_stubs_are_run_with_every_test(pool: SandboxPool) -> None:
    """Also after two that wait forever for what the stub never gives: of an object, only the last fails at once."""
    source = "def less(n):\n    return n - 1\n"
    bodies = {f"waits_{n}": f"n = {n}\nwhile n: n = less(n)\nassert n == 0" for n in (1, 2, 3)}
    bodies["of_one"] = "assert not less(1)"
    scores = asyncio.run(
        validate(as_function(source, "less"), as_candidates(bodies), pool, ValidationSettings(max_mutants=0))
    )
    assert all(test.fails_on_stub for test in scores.tests)


async def test_the_stage_adds_the_scores_to_a_row() -> None:
    row = {FUNCTION: to_row(as_function()), CANDIDATES: to_row(as_candidates({"none": KEPT["none"]}))}
    stage = ValidateStage(ValidationSettings(max_mutants=3), num_workers=1)
    await stage.open(None)
    try:
        done = await stage.process(row)
        with pytest.raises(RowError, match="lengthen is not defined"):
            await stage.process({**row, FUNCTION: to_row(as_function(name="lengthen"))})
    finally:
        await stage.close()
    assert {FUNCTION: done[FUNCTION], CANDIDATES: done[CANDIDATES]} == row
    scores = from_row(SuiteScores, json.loads(canonical_json(done[SUITE])))
    assert (scores.num_mutants, [test.verdict for test in scores.tests]) == (3, [Verdict.KEPT])


async def test_a_machine_with_other_versions_runs_nothing() -> None:
    stage = ValidateStage(ValidationSettings(), 1, {**sandbox_versions(), "python": "3.10.0"})
    with pytest.raises(ConfigError, match=r"'python': '3\.10\.0'"):
        await stage.open(None)


def test_the_python_that_makes_mutants_is_a_part_of_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = ".".join(map(str, find_interpreter().version))
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "99", "1"))
    assert sandbox_versions()["python"] == f"{inside}, mined and mutated by 3.99"
    monkeypatch.setattr("platform.python_version_tuple", lambda: (*inside.split(".")[:2], "99"))
    assert sandbox_versions()["python"] == inside


async def test_runs_are_reported_in_their_order(pool: SandboxPool) -> None:
    tests = tuple(as_test(name, body).source for name, body in KEPT.items())
    wrong = SOURCE.replace("kept[:most]", "kept")
    runs = (Run(1, (0,)), Run(0, (2, 0, 1)), Run(0, (1,)), Run(1, (3, 2)))
    results = await execute(pool, Plan((SOURCE, wrong), tests, "shorten", runs))
    assert [[run.passed for run in result] for result in results] == [[False], [True] * 3, [True], [False, True]]
    suite = await run_suite(pool, SOURCE, "shorten", [as_test(*item) for item in KEPT.items()], order=(3, 0))
    assert {name: run.passed for name, run in suite.items()} == {"none": True, "two_words": True}
    assert await execute(pool, Plan((SOURCE,), tests, "shorten", ())) == ()


async def test_a_sandbox_that_breaks_is_no_verdict() -> None:
    class Broken:
        async def run(self, execution: Execution) -> ExecutionResult:
            return ExecutionResult(Ending.EXITED, 1, None, b"", b"broken", b"", 0.0, 0.0)

    with pytest.raises(SandboxUnavailable, match="whatever it runs"):
        await run_suite(Broken(), SOURCE, "shorten", [as_test("a", "assert shorten('a')")])


async def test_what_a_report_says_is_not_trusted(pool: SandboxPool) -> None:
    class Lying:
        def __init__(self, record: dict[str, object]) -> None:
            self.report = json.dumps({"run": 0, "test": 0, **record}).encode()

        async def run(self, execution: Execution) -> ExecutionResult:
            return ExecutionResult(Ending.EXITED, 0, None, b"", b"", self.report, 0.0, 0.0)

    plan = Plan((SOURCE,), (as_test("a", "assert shorten('a')").source,), "shorten", (Run(0, (0,)),))
    for record in (
        {"outcome": "splendid"},
        {"outcome": "passed", "lines": ["x"]},
        {"outcome": "passed", "branches": [1]},
        {"outcome": "passed", "lines": [float("inf")]},
    ):
        ((run,),) = await execute(Lying(record), plan)
        assert run.outcome is TestOutcome.CRASHED
