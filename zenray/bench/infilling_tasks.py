"""Gaps in real code, made from what is installed: no download, and the same seed gives the same gaps.

humaneval: lines of the canonical solutions of HumanEval (Chen et al. 2021, arXiv 2107.03374; MIT licence, shipped in
`zenray/bench/data/`) are taken out as in Bavarian et al. 2022 (arXiv 2207.14255, section 4.3), and the problem's own
tests judge what is put in. library: lines of functions of the standard library and of networkx, judged by likeness
alone. cross-file: see `infilling_cross_file`.
"""

from __future__ import annotations

import ast
import gzip
import json
import random
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path

from zenray.bench.infilling_cross_file import cross_file_gaps, package_folder
from zenray.bench.infilling_gap import Gap, GapKind
from zenray.bench.prompts import SOURCE_FILES
from zenray.errors import ConfigError

LIBRARY_PACKAGE = "networkx"
_GAP_LINES = (2, 6)
_SHORTEST_LINE = 6
_LONGEST_LINES_CHARACTERS = 400


def make_gaps(kind: GapKind, count: int, seed: int = 0) -> tuple[Gap, ...]:
    """`count` different gaps of a kind; the first of a longer list are those of a shorter one.

    Raises:
        ConfigError: so many cannot be made (HumanEval has 164 problems, and a gap is made in each but once).
    """
    makers: dict[GapKind, Callable[[random.Random], Iterable[Gap]]] = {
        "humaneval line": lambda rng: _humaneval("humaneval line", rng),
        "humaneval lines": lambda rng: _humaneval("humaneval lines", rng),
        "library line": lambda rng: _library("library line", rng),
        "library lines": lambda rng: _library("library lines", rng),
        "cross-file": cross_file_gaps,
    }
    gaps = tuple(islice(makers[kind](random.Random(f"{kind}-{seed}")), count))
    if len(gaps) < count:
        raise ConfigError(f"only {len(gaps)} gaps of kind {kind} can be made here, {count} wanted")
    return gaps


def _humaneval(kind: GapKind, rng: random.Random) -> Iterator[Gap]:
    data = resources.files("zenray.bench").joinpath("data/HumanEval.jsonl.gz").read_bytes()
    problems = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
    rng.shuffle(problems)
    for number, problem in enumerate(problems):
        head, solution = problem["prompt"], problem["canonical_solution"].rstrip("\n") + "\n"
        cut = _cut(kind, number, head + solution, head.count("\n"), rng)
        if cut is not None:
            test = f"\n{problem['test']}\ncheck({problem['entry_point']})\n"
            path = f"{problem['entry_point']}.py"
            yield Gap(kind, problem["task_id"], path, *cut, test=test)


def _library(kind: GapKind, rng: random.Random) -> Iterator[Gap]:
    sources = library_sources()
    functions = [(name, node) for name, text in sources.items() for node in _functions(text)]
    rng.shuffle(functions)
    for number, (name, (first_line, end_line)) in enumerate(functions):
        lines = sources[name].splitlines(keepends=True)
        cut = _cut(kind, number, "".join(lines[:end_line]), first_line, rng)
        if cut is not None:
            before, missing, after = cut
            yield Gap(kind, f"{name}:{first_line + 1}", name, before, missing, after + "".join(lines[end_line:]))


def _cut(kind: GapKind, number: int, text: str, first_line: int, rng: random.Random) -> tuple[str, str, str] | None:
    """Text before a gap behind `first_line`, what is missing, and text behind it; None where no gap fits."""
    lines = text.splitlines(keepends=True)
    if kind.endswith("lines"):
        spans = [span for span in _spans(lines, first_line) if _is_worth("".join(lines[slice(*span)]))]
        if not spans:
            return None
        first, end = rng.choice(spans)
        cursor = _indent(lines[first])
        missing = "".join(lines[first:end])[cursor:].rstrip("\n")
    else:
        candidates = [at for at in range(first_line, len(lines)) if _is_worth(lines[at])]
        if not candidates:
            return None
        first = rng.choice(candidates)
        code = lines[first].rstrip()
        cursor = _indent(code)
        if number % 2:
            cursor += rng.randint(1, (len(code) - cursor) // 2)
        missing = code[cursor:]
    before = "".join(lines[:first]) + lines[first][:cursor]
    return before, missing, text[len(before) + len(missing) :]


def _spans(lines: list[str], first_line: int) -> Iterator[tuple[int, int]]:
    """Runs of lines no shallower than their first: part of a block, or a whole body."""
    for first in range(first_line, len(lines)):
        if not lines[first].strip():
            continue
        indent = _indent(lines[first])
        for end in range(first + 1, min(first + _GAP_LINES[1], len(lines)) + 1):
            line = lines[end - 1]
            if line.strip() and _indent(line) < indent:
                break
            if end - first >= _GAP_LINES[0] and line.strip():
                yield first, end


def _is_worth(text: str) -> bool:
    """Code rather than a comment or a text, and of a length a suggestion has."""
    stripped = text.strip()
    if not _SHORTEST_LINE <= len(stripped) <= _LONGEST_LINES_CHARACTERS:
        return False
    return not any(line.lstrip().startswith(("#", '"', "'", ">>>")) for line in stripped.splitlines())


def _functions(text: str) -> Iterator[tuple[int, int]]:
    """Lines [start, end) of the code of every function, behind its docstring."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if body and body[-1].end_lineno is not None and body[-1].end_lineno - body[0].lineno >= _GAP_LINES[1]:
            yield body[0].lineno - 1, body[-1].end_lineno


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


@cache
def library_sources() -> dict[str, str]:
    """Texts by path, of the standard library and of one pure package installed with torch."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in SOURCE_FILES if (folder / name).is_file()}
    package = package_folder(LIBRARY_PACKAGE)
    for path in sorted((package / "algorithms").glob("*.py")) if package else ():
        texts[path.relative_to(path.parents[2]).as_posix()] = path.read_text(encoding="utf-8")
    return {name: text for name, text in texts.items() if text.isascii() and "\t" not in text}
