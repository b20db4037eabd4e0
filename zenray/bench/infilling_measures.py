"""How good a filling is: equal, alike, working, whole. Pure, but for the sandbox that runs tests."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zenray.batch.sandbox import Execution, SandboxPool
from zenray.bench.infilling_gap import Gap
from zenray.context.languages.grammars import num_syntax_errors, parse

_JUDGE = """
import os, runpy
runpy.run_path("program.py", run_name="__main__")
os.write(int(os.environ["ZENRAY_REPORT_FD"]), b"reached the end")
"""
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Filling:
    """What came back for a gap. `text` is empty where nothing would be shown."""

    gap: Gap
    text: str
    num_tokens: int
    """Generated, whether or not they are in the text."""
    prompt_tokens: int
    finish_reason: str
    has_definition: bool = False
    """The prompt held the line that a cross-file gap needs."""


def is_exact(text: str, missing: str) -> bool:
    """The same but for white space between and around words."""
    return text.split() == missing.split()


def edit_similarity(text: str, missing: str) -> float:
    """One less the Levenshtein distance in characters over the longer length, outer white space aside."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(text.strip(), missing.strip()))


def identifier_f1(text: str, missing: str) -> float:
    """Harmonic mean of precision and recall of the identifiers, each counted as often as it stands there; as in
    CrossCodeEval (Ding et al. 2023, arXiv 2310.11248). 1 where neither has any."""
    found, wanted = (Counter(_IDENTIFIER.findall(code)) for code in (text, missing))
    total = found.total() + wanted.total()
    return 2 * (found & wanted).total() / total if total else 1.0


def parses_no_worse(filling: Filling) -> bool:
    """With the text, the file has no more syntax errors than without."""
    with_text, without = (_num_errors(filling.gap.filled(text)) for text in (filling.text, ""))
    return with_text <= without


def run_tests(fillings: Sequence[Filling], sandbox: SandboxPool) -> dict[Filling, bool]:
    """Whether each filling with tests passes them; equal files run once. What is not shown does not pass."""
    verdicts: dict[str, bool] = {}
    passed: dict[Filling, bool] = {}
    for filling in fillings:
        if filling.gap.test:
            program = filling.gap.filled(filling.text) + filling.gap.test
            if program not in verdicts:
                verdicts[program] = bool(filling.text.strip()) and _reaches_its_end(program, sandbox)
            passed[filling] = verdicts[program]
    return passed


def _reaches_its_end(program: str, sandbox: SandboxPool) -> bool:
    """Leaving early, which any program can do with status 0, is not enough."""
    files = {"judge.py": _JUDGE, "program.py": program}
    return sandbox.run_blocking(Execution(files, "judge.py")).report == b"reached the end"


def summarise_fillings(fillings: Sequence[Filling], passed: Mapping[Filling, bool]) -> dict[str, Any]:
    """One row of the report: shares and means over `fillings`, at least one; None where nothing can be said."""
    shown = [filling for filling in fillings if filling.text.strip()]
    needing = [filling for filling in fillings if filling.gap.definition]
    judged = [passed[filling] for filling in fillings if filling in passed]
    return {
        "count": len(fillings),
        "exact": statistics.fmean(is_exact(each.text, each.gap.missing) for each in fillings),
        "similarity": statistics.fmean(edit_similarity(each.text, each.gap.missing) for each in fillings),
        "identifiers": statistics.fmean(identifier_f1(each.text, each.gap.missing) for each in fillings),
        "passed": statistics.fmean(judged) if judged else None,
        "shown": len(shown) / len(fillings),
        "parses_no_worse": statistics.fmean(map(parses_no_worse, shown)) if shown else None,
        "tokens": statistics.fmean(each.num_tokens for each in fillings),
        "prompt_tokens": statistics.fmean(each.prompt_tokens for each in fillings),
        "has_definition": statistics.fmean(each.has_definition for each in needing) if needing else None,
        "finish_reasons": dict(Counter(each.finish_reason for each in fillings).most_common()),
    }


def _num_errors(text: str) -> int:
    tree = parse("python", text.encode())
    assert tree is not None, "there is a grammar for Python"
    return num_syntax_errors(tree)
