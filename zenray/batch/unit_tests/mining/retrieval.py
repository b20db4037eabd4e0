"""Tests that a repository has already: for a prompt, the ones that show best how code like this is tested there.

A test that calls the function by its name comes first. Without one, tests are ranked by BM25 over the words of the
function's name and parameters: those whose names share two words with it, or one if their file is its module's.
"""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from zenray.batch.unit_tests.mining.module_map import ModuleMap, functions_of
from zenray.batch.unit_tests.mining.module_names import DEFINITIONS, Definition
from zenray.batch.unit_tests.mining.skip_effects import parameters_of
from zenray.context.pieces import ContextSource, Snippet
from zenray.context.prompt.candidates import WordIndex, bm25, index_words
from zenray.context.prompt.words import terms_of

MAX_SIMILAR_TESTS = 2
_MAX_TEST_LINES = 25
_MAX_TESTS = 20_000
"""Of a repository; more would not be better examples."""
_CALLED_BY_MANY = 50
"""A name called in more tests than this, such as `get`, says little; the others of its kind are not ranked."""

_NAME_WEIGHT, _PARAMETER_WEIGHT = 1.0, 0.3
_NO_NAME = frozenset(("test", "tests", "get", "set", "is", "to", "of", "from", "self"))


@dataclass(frozen=True, slots=True)
class ExistingTest:
    """A short test of a repository. `calls` are the last names of what it calls."""

    path: str
    name: str
    source: str
    calls: frozenset[str]
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What similar tests are looked for by. `owner` is the class of a method, empty for a function."""

    path: str
    name: str
    owner: str
    parameters: tuple[str, ...]


def existing_tests(module: ModuleMap) -> Iterator[ExistingTest]:
    """The short tests of a module that check something."""
    for node, around in functions_of(module.tree):
        if not node.name.startswith("test") or any(isinstance(each, DEFINITIONS) for each in around):
            continue
        if isinstance(node, ast.AsyncFunctionDef) or not _checks_something(node):
            continue
        assert node.end_lineno is not None
        start = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        if node.end_lineno - start >= _MAX_TEST_LINES:
            continue
        source = textwrap.dedent("\n".join(module.lines[start - 1 : node.end_lineno])) + "\n"
        calls = frozenset(_last_name(each.func) for each in ast.walk(node) if isinstance(each, ast.Call))
        names = frozenset(
            each.id if isinstance(each, ast.Name) else each.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Name | ast.Attribute)
        )
        yield ExistingTest(module.path, node.name, source, calls, names)


def wanted(node: Definition, owner: str, path: str) -> Wanted:
    """What to look for, for a function of a module at `path`."""
    return Wanted(path, node.name, owner, tuple(name for name in parameters_of(node) if name not in ("self", "cls")))


@dataclass(slots=True)
class _Repository:
    tests: list[ExistingTest] = field(default_factory=list)
    by_call: dict[str, list[int]] = field(default_factory=dict)
    by_word: dict[str, list[int]] = field(default_factory=dict)
    index: list[WordIndex] = field(default_factory=list)


class TestLibrary:
    """The short tests of every repository that was read, to be asked when all are there."""

    __test__ = False

    def __init__(self) -> None:
        self._repositories: dict[str, _Repository] = {}

    def add(self, repository: str, tests: Iterable[ExistingTest]) -> None:
        """In the order of reading; beyond 20,000 tests of a repository the rest is left out."""
        known = self._repositories.setdefault(repository, _Repository())
        for test in tests:
            if len(known.tests) >= _MAX_TESTS:
                return
            number = len(known.tests)
            known.tests.append(test)
            for name in test.calls:
                known.by_call.setdefault(name, []).append(number)
            for word in _words(test.name):
                known.by_word.setdefault(word, []).append(number)

    def similar_tests(self, repository: str, function: Wanted) -> tuple[str, ...]:
        """At most two tests of the same repository, the best first."""
        known = self._repositories.get(repository)
        if known is None:
            return ()
        found = self._callers(known, function) or self._namesakes(known, function)
        return tuple(test.source for test in found[:MAX_SIMILAR_TESTS])

    def _callers(self, known: _Repository, function: Wanted) -> list[ExistingTest]:
        """Tests that call it: those of the module's own test file, and short ones, first. For a method, the test must
        name its class too."""
        numbers = known.by_call.get(function.name, ())
        tests = [
            known.tests[number]
            for number in numbers
            if not function.owner or function.owner in known.tests[number].words
        ]
        if len(tests) > _CALLED_BY_MANY:
            tests = [test for test in tests if _is_about(test, function)]
        return sorted(tests, key=lambda test: (not _is_about(test, function), len(test.source), test.path, test.name))

    def _namesakes(self, known: _Repository, function: Wanted) -> list[ExistingTest]:
        words = _words(function.name)
        shared = Counter(number for word in words for number in known.by_word.get(word, ()))
        numbers = [
            number for number, count in sorted(shared.items()) if count > 1 or _is_about(known.tests[number], function)
        ]
        if not numbers:
            return []
        if not known.index:
            known.index.append(index_words([_snippet(test) for test in known.tests]))
        query = dict.fromkeys(words, _NAME_WEIGHT)
        for parameter in function.parameters:
            for word in _words(parameter):
                query.setdefault(word, _PARAMETER_WEIGHT)
        scores = bm25(query, known.index)[0]
        ranked = sorted(numbers, key=lambda number: (-scores[number], number))
        return [known.tests[number] for number in ranked if scores[number] > 0]


def _is_about(test: ExistingTest, function: Wanted) -> bool:
    """Whether a test's file is named after the function's module, or the test after the function."""
    module = PurePosixPath(function.path).stem.strip("_")
    return module in PurePosixPath(test.path).stem or function.name.strip("_") in test.name


def _words(name: str) -> frozenset[str]:
    return frozenset(terms_of(name)) - _NO_NAME


def _snippet(test: ExistingTest) -> Snippet:
    return Snippet(ContextSource.SNIPPET, test.path, test.source)


def _checks_something(node: Definition) -> bool:
    return any(
        isinstance(each, ast.Assert) or (isinstance(each, ast.Call) and _last_name(each.func).startswith(_CHECKS))
        for each in ast.walk(node)
    )


_CHECKS = ("assert", "raises", "eq_", "ok_")


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
