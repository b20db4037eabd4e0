"""The kept tests as a folder that plain `pytest` runs: one focal module and its tests per function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from zenray.batch.rows import ROW_ID
from zenray.batch.unit_tests.results.record import kept_tests
from zenray.batch.unit_tests.validation.suite_source import join_tests

_ROW_DIGITS = 12
_LONGEST_SLUG = 60
_SETTINGS = """\
# Tested functions and classes may have names that pytest takes for those of tests, and repositories names of folders
# that it does not enter.
[pytest]
pythonpath = {folders}
python_files = test_*.py
python_functions = test_*
python_classes =
norecursedirs =
"""


def write_tree(folder: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Fills an empty `folder` from rows of `record.SCHEMA`; returns the number of tests.

    A function's files are `REPOSITORY/focal_NAME_ID.py` and `REPOSITORY/test_NAME_ID.py`. Their names are unique, so
    that no import mode and no module of the standard library can confuse them.
    """
    folders: set[str] = set()
    num_tests = 0
    for record in records:
        files = function_files(record)
        if not files:
            continue
        repository = function_folder(record)
        (folder / repository).mkdir(exist_ok=True)
        folders.add(repository)
        for name, text in files.items():
            (folder / repository / name).write_text(text, encoding="utf-8", newline="\n")
        num_tests += len(kept_tests(record))
    (folder / "pytest.ini").write_text(_SETTINGS.format(folders=" ".join(sorted(folders)) or "."), encoding="utf-8")
    return num_tests


def function_folder(record: Mapping[str, Any]) -> str:
    """The folder of its repository, which holds the files of a function."""
    return _slug(record["provenance"]["repository"])


def function_files(record: Mapping[str, Any]) -> dict[str, str]:
    """The files of one function by name; none where no test was kept."""
    tests = kept_tests(record)
    if not tests:
        return {}
    stem = PurePosixPath(record["provenance"]["path"]).stem
    name = f"{_slug(stem + '_' + record['qualified_name'])}_{record[ROW_ID][:_ROW_DIGITS]}"
    focal = f"focal_{name}"
    files = {f"{focal}.py": _head(record, _FOCAL_HEAD) + record["module_source"]}
    for place, text in enumerate(join_tests(tests, focal, record["import_name"])):
        number = f"_{place + 1}" if place else ""
        files[f"test_{name}{number}.py"] = _head(record, _TEST_HEAD) + text
    return files


# A declaration of an encoding counts in the first two lines, whatever else stands there: provenance begins below them.
_FOCAL_HEAD = """\
# {name}, with what it needs to run alone.
#
# Taken from {repository}: {path}, lines {start_line} to {end_line}.
# Revision: {revision}. Licence of the source: {licence}.
"""
_TEST_HEAD = """\
# Tests of {name}, written by a model and kept for what they were seen to do.
#
# Tested code: {repository}: {path}, lines {start_line} to {end_line}.
# Revision: {revision}. Licence of the tested code: {licence}.
# Model: {model}.
# Mutation score {mutation_score}, lines {line_coverage}, branches {branch_coverage}, agreement {agreement}.
"""


def _head(record: Mapping[str, Any], template: str) -> str:
    provenance, model = record["provenance"], record["model"]
    shares = ("mutation_score", "line_coverage", "branch_coverage", "agreement")
    facts = {
        "name": record["qualified_name"],
        "licence": provenance["licence_file"] or "no licence file found",
        "model": f"{model['name']}, {model['weight_format']}, SHA-256 {model['sha256']}" if model else "unknown",
        **{name: "not measured" if record[name] is None else f"{record[name]:.2f}" for name in shares},
        "revision": provenance["revision"] or "unknown",
        **{name: provenance[name] for name in ("repository", "path", "start_line", "end_line")},
    }
    return template.format(**{name: _one_line(str(fact)) for name, fact in facts.items()}) + "\n"


def _one_line(text: str) -> str:
    """A fact must not end its comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _slug(text: str) -> str:
    """Letters, digits and underscores of ASCII, the end of `text` rather than its beginning."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    return "_".join(words)[-_LONGEST_SLUG:].strip("_") or "code"
