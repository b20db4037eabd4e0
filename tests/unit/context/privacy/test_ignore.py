"""What is ignored is what git ignores, plus our own rules and the built-in ones."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.context.privacy.ignore import IgnoreRules

NAMES = ["a", "b", "ab", "a.b", "b.c", ".a", "a b", "é", "#a", "!b", "a[b"]
PIECES = [
    "a",
    "b",
    "ab",
    "*",
    "?",
    "**",
    "a*",
    "*b",
    "*.b",
    "a?",
    "[ab]",
    "[!a]",
    "[a-b]*",
    "*a*b*",
    "*[!b]*a*?*",
    ".*",
    "a.b",
    "é",
    "a\\ b",
]
_names = st.sampled_from(NAMES)
_patterns = st.builds(
    lambda sign, root, pieces, slash, end: f"{sign}{root}{'/'.join(pieces)}{slash}{end}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
    st.sampled_from(["", "", "", " ", "  "]),
)
_lines = st.one_of(_patterns, st.sampled_from(["", "# a", "\\#a", "\\!b", "!", "/", "**/", "*/", "!*/", "a[b", "\\"]))
_rule_files = st.builds(
    lambda lines, end, bom: bom + end.join(lines) + end * bool(lines),
    st.lists(_lines, max_size=5),
    st.sampled_from(["\n", "\n", "\r\n"]),
    st.sampled_from(["", "", "\ufeff"]),
)


def _tree(depth: int) -> st.SearchStrategy[dict[str, object]]:
    """name -> None for a file, a tree for a directory; "" holds the directory's rules."""
    entry = st.none() if depth == 0 else st.one_of(st.none(), _tree(depth - 1))
    return st.builds(
        lambda entries, rules: {**entries, **({} if rules is None else {"": rules})},
        st.dictionaries(_names, entry, min_size=1, max_size=4),
        st.one_of(st.none(), _rule_files),
    )


def _write(folder: Path, tree: dict[str, object], rule_file: str) -> None:
    for name, what in tree.items():
        if name == "":
            (folder / rule_file).write_bytes(str(what).encode())
        elif what is None:
            (folder / name).touch()
        else:
            (folder / name).mkdir()
            _write(folder / name, what, rule_file)  # type: ignore[arg-type]


def _entries(root: Path) -> list[tuple[str, bool]]:
    found = []
    for folder, directories, files in os.walk(root):
        if folder == str(root) and ".git" in directories:
            directories.remove(".git")
        place = Path(folder).relative_to(root)
        found += [((place / name).as_posix(), True) for name in directories]
        found += [((place / name).as_posix(), False) for name in files]
    return found


def _git_ignores(root: Path, paths: list[str]) -> set[str]:
    """git's own answer. It may say of a negated line that it matched; only -v tells which."""
    asked = "\0".join(paths) + "\0"
    command = ["git", "-C", str(root), "check-ignore", "--no-index", "--stdin", "-z", "-v", "-n"]
    told = subprocess.run(command, input=asked.encode(), capture_output=True, check=False)
    assert told.returncode in (0, 1), told.stderr
    fields = told.stdout.decode().split("\0")
    return {path for pattern, path in zip(fields[2::4], fields[3::4], strict=False) if pattern and pattern[0] != "!"}


@pytest.fixture(scope="module")
def repository() -> Path:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "-q", folder], check=True)
        yield Path(folder)  # type: ignore[misc]


def _empty(root: Path) -> None:
    for folder, directories, files in os.walk(root, topdown=False):
        if ".git" not in Path(folder).relative_to(root).parts:
            for name in files:
                (Path(folder) / name).unlink()
            for name in directories:
                if name != ".git":
                    (Path(folder) / name).rmdir()


@given(_tree(3), st.one_of(st.just(""), _rule_files))
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_tree_is_ignored_as_git_ignores_it(repository: Path, tree: dict[str, object], exclude: str) -> None:
    _empty(repository)
    _write(repository, tree, ".gitignore")
    (repository / ".git" / "info" / "exclude").write_bytes(exclude.encode())
    entries = _entries(repository)
    rules = IgnoreRules(repository)
    ours = {path for path, is_directory in entries if rules.is_ignored(path, is_directory)}
    assert ours == _git_ignores(repository, [path for path, _ in entries])


def test_a_pattern_of_many_stars_is_matched_in_one_pass(tmp_path: Path) -> None:
    """git takes minutes for the first; the time limit of the test would tell."""
    (tmp_path / ".gitignore").write_text("*a*a*a*a*a*a*a*a*b\n**/*x*y*x*y*/z\n")
    rules = IgnoreRules(tmp_path)
    assert not rules.is_ignored("a" * 250)
    assert rules.is_ignored("a" * 250 + "b")
    assert rules.is_ignored("d/" + "xy" * 100 + "/z")
    assert not rules.is_ignored("d/" + "xy" * 100 + "/y")


def test_own_rules_stand_above_those_of_git_and_hide_what_lies_below(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("generated/\n*.log\n")
    (tmp_path / ".zenrayignore").write_text("!generated/\nprivate/\n!.venv/\n")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / ".gitignore").write_text("!kept.py\n")
    (tmp_path / "private" / ".zenrayignore").write_text("!kept.py\n")
    rules = IgnoreRules(tmp_path)
    shown = ("generated/api.py", "main.py", ".venv/lib/x.py", "a/b/c/d.py")
    hidden = (
        "private/kept.py",
        "a.log",
        "node_modules/x/index.js",
        "a/__pycache__/b.py",
        ".git/config",
        "x/.git/hooks/a",
    )
    assert [path for path in (*shown, *hidden) if rules.is_ignored(path)] == list(hidden)


def test_rules_above_the_root_hold_within_its_repository_only(tmp_path: Path) -> None:
    (tmp_path / ".zenrayignore").write_text("*\n")
    repository = tmp_path / "repository"
    root = repository / "part" / "deep"
    root.mkdir(parents=True)
    (repository / ".git").mkdir()
    (repository / ".gitignore").write_text("/part/deep/a.py\n/b.py\nc.py\n")
    (repository / "part" / ".zenrayignore").write_text("/deep/d.py\n")
    rules = IgnoreRules(root)
    assert [name for name in ("a.py", "b.py", "c.py", "d.py", "e.py") if rules.is_ignored(name)] == [
        "a.py",
        "c.py",
        "d.py",
    ]


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a/..", "//x", "a\0b/c", "a/" * 2000 + "b"]
)
def test_what_is_no_path_below_the_root_is_ignored(tmp_path: Path, path: str) -> None:
    assert IgnoreRules(tmp_path).is_ignored(path)


def test_what_zenrayignore_names_is_withheld_from_its_own_editor_and_what_git_ignores_is_not(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("local.py\n")
    (tmp_path / ".zenrayignore").write_text("secret/\n*.key.py\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / ".zenrayignore").write_text("!open.key.py\n")
    rules = IgnoreRules(tmp_path)
    paths = (
        "local.py",
        "main.py",
        "secret/a.py",
        "secret\\deep\\b.py",
        "src/a.key.py",
        "src/open.key.py",
        "../a.key.py",
    )
    assert [path for path in paths if rules.is_withheld(path)] == ["secret/a.py", "secret\\deep\\b.py", "src/a.key.py"]


def test_a_private_file_is_private_however_its_folders_are_parted(tmp_path: Path) -> None:
    (tmp_path / ".zenrayignore").write_text("generated/\n")
    rules = IgnoreRules(tmp_path)
    paths = ("generated/deep/a.py", "generated\\deep\\a.py", "src\\.env", "..\\a.py", "src\\a.py")
    assert [rules.is_private(path) for path in paths] == [True, True, True, True, False]


def test_rule_files_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xff\xfe\0[z-a]\n!\n\\\n\n[[:x:]]\n***\n/\nhidden\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / ".gitignore")
    (tmp_path / "folder" / ".zenrayignore").mkdir()
    rules = IgnoreRules(tmp_path)
    assert rules.is_ignored("hidden")
    assert rules.is_ignored("folder/hidden")
