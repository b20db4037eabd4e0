"""From a function's answers to its candidates: parsed, told apart, counted. Nothing generated is run here."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from zenray.batch.rows import row_id
from zenray.batch.unit_tests.candidates.implementations import implementation_of, original_key
from zenray.batch.unit_tests.candidates.imports import FocalModule, Refused
from zenray.batch.unit_tests.candidates.tests import DraftRejection, DraftTest, tests_of
from zenray.batch.unit_tests.candidates.text import MAX_CHARACTERS, Unparsable, code_of, parse_complete, parse_module
from zenray.batch.unit_tests.model import CandidateTest, Implementation, MinedFunction, RejectedText
from zenray.batch.unit_tests.prompting.prompts_source import FocalSource

MAX_REJECTED_CHARACTERS = 2000
"""Of a rejected text that are kept."""
_MAX_DRAFTS = 64
"""Tests of one answer that are looked at."""
DUPLICATE = "the same as an earlier one"
MEMORISED = "the same as the mined function"
_TEST, _IMPLEMENTATION = "test", "implementation"


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated text behind the beginning it was given. `is_cut`: it ended by its limit, perhaps within a word."""

    text: str
    begins_in_code: bool
    is_cut: bool


def collect_tests(
    function: MinedFunction, answers: Sequence[Answer], max_tests: int
) -> tuple[list[CandidateTest], list[RejectedText]]:
    """Every test of every answer once, at most `max_tests`, in order, and what was refused, and why."""
    focal = FocalModule.of(function)
    tests: list[CandidateTest] = []
    rejected: list[RejectedText] = []
    keys: set[str] = set()
    names: set[str] = set()
    for answer in answers:
        for draft in _drafts(answer, focal):
            if isinstance(draft, DraftRejection):
                rejected.append(_rejected(_TEST, draft.reason, draft.source))
            elif draft.key in keys:
                rejected.append(_rejected(_TEST, DUPLICATE, draft.source))
            elif len(tests) == max_tests:
                rejected.append(_rejected(_TEST, f"more than {max_tests} tests", draft.source))
            else:
                keys.add(draft.key)
                named = _with_new_name(draft, names)
                names.add(named.name)
                test_id = row_id("test", function.row_id, named.source)
                tests.append(CandidateTest(test_id, named.name, named.source))
    return tests, rejected


def _drafts(answer: Answer, focal: FocalModule) -> Iterator[DraftTest | DraftRejection]:
    code, is_cut = _code(answer)
    try:
        # A list: whatever deep trees do, they do here.
        yield from list(islice(tests_of(parse_complete(code, is_cut), focal), _MAX_DRAFTS))
    except Unparsable as error:
        yield DraftRejection(f"does not parse: {error}", code)
    except (RecursionError, MemoryError, ValueError) as error:  # Trees too deep, numbers too long to write.
        yield DraftRejection(f"cannot be dealt with: {type(error).__name__}", code)


def _code(answer: Answer) -> tuple[str, bool]:
    """The answer's code, and whether its last line may be missing something."""
    code = code_of(answer.text, answer.begins_in_code)
    return code, answer.is_cut or len(answer.text) > MAX_CHARACTERS


def _with_new_name(draft: DraftTest, names: set[str]) -> DraftTest:
    if draft.name not in names:
        return draft
    number = next(number for number in range(2, len(names) + 3) if f"{draft.name}_{number}" not in names)
    name = f"{draft.name}_{number}"
    return replace(draft, name=name, source=draft.source.replace(f"def {draft.name}(", f"def {name}(", 1))


def collect_implementations(
    function: MinedFunction, source: FocalSource, answers: Sequence[Answer]
) -> tuple[list[Implementation], list[RejectedText]]:
    """Every re-implementation once, in order, and what was refused; the mined function itself is refused."""
    implementations: list[Implementation] = []
    rejected: list[RejectedText] = []
    keys = {original_key(source): MEMORISED}
    for answer in answers:
        code, is_cut = _code(answer)
        try:
            tree, is_whole = _parsed(code, is_cut)
            module, key = implementation_of(tree, is_whole, source)
        except (Unparsable, Refused) as error:
            reason = f"does not parse: {error}" if isinstance(error, Unparsable) else str(error)
            rejected.append(_rejected(_IMPLEMENTATION, reason, code))
        except (RecursionError, MemoryError, ValueError) as error:
            rejected.append(_rejected(_IMPLEMENTATION, f"cannot be dealt with: {type(error).__name__}", code))
        else:
            if key in keys:
                rejected.append(_rejected(_IMPLEMENTATION, keys[key], code))
            else:
                keys[key] = DUPLICATE
                name = row_id("implementation", function.row_id, module)
                implementations.append(Implementation(name, module))
    return implementations, rejected


def _parsed(code: str, is_cut: bool) -> tuple[ast.Module, bool]:
    """The tree of the code as far as it is complete, and whether that is all of it. Raises Unparsable."""
    if not is_cut:
        with contextlib.suppress(Unparsable):
            return parse_module(code), True
    return parse_complete(code, is_cut), False


def not_asked(reason: str) -> RejectedText:
    """Says why no re-implementation was asked for."""
    return _rejected(_IMPLEMENTATION, reason, "")


def _rejected(kind: str, reason: str, text: str) -> RejectedText:
    return RejectedText(kind, reason, text[:MAX_REJECTED_CHARACTERS])
