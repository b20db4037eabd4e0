"""Which files of a tree are left alone: .zenrayignore, built-in rules, and .gitignore as git reads it.

Every directory may hold both files. A file's own directory speaks before those above it, the last matching line of a
file counts, and nothing below an ignored directory can be taken back (gitignore(5)). What .zenrayignore says of a
file stands whatever the others say: it may hide what git tracks, and `!generated/` may show what git ignores.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from zenray.context.privacy.secret_files import is_secret_file

GIT_RULES, OWN_RULES = ".gitignore", ".zenrayignore"

_NEVER = frozenset((".git", ".hg", ".svn", ".bzr", ".jj"))
"""Folders of version control; no rule takes them back."""

_BUILT_IN = """
CVS/
node_modules/
bower_components/
.venv/
venv/
site-packages/
dist-packages/
__pycache__/
.eggs/
*.egg-info/
.tox/
.nox/
.mypy_cache/
.ruff_cache/
.pytest_cache/
.hypothesis/
.ipynb_checkpoints/
.gradle/
.terraform/
.next/
.nuxt/
.svelte-kit/
.dart_tool/
.cache/
*.min.js
*.min.css
*.bundle.js
"""

_MAX_RULE_BYTES = 4 << 20
_MAX_DEPTH = 256
"""Of a path. Every folder is asked for its rules, from the deepest up."""

Rules = tuple[tuple[re.Pattern[str], bool], ...]
"""Patterns of whole paths and whether each ignores, the last line first. A directory's path ends in a slash."""


@dataclass(frozen=True, slots=True)
class _RuleFile:
    """One file of rules. `depth` is how many characters of a path lead to its directory; `above` leads from its
    directory down to the root of the tree, where it lies above."""

    rules: Rules
    depth: int = 0
    above: str = ""

    def verdict(self, path: str) -> bool | None:
        """Whether `path`, a directory's with a slash at its end, is ignored; None where no line speaks of it."""
        relative = self.above + path[self.depth :]
        if not relative.isascii():
            # As git does, which matches bytes.
            relative = os.fsencode(relative).decode("latin-1")
        return next((ignored for pattern, ignored in self.rules if pattern.fullmatch(relative)), None)


@dataclass(frozen=True, slots=True)
class DirectoryRules:
    """The rules that hold in one directory; those of the deepest file first. `path` ends in a slash, or is empty."""

    root: Path
    path: str
    own: tuple[_RuleFile, ...]
    git: tuple[_RuleFile, ...]

    def ignores(self, name: str, is_directory: bool) -> bool:
        """Whether an entry of this directory is left alone; the directory itself is not."""
        if name in _NEVER:
            return True
        path = f"{self.path}{name}/" if is_directory else self.path + name
        said = _first_verdict(self.own, path)
        if said is None:
            said = _built_in().verdict(path) or _first_verdict(self.git, path)
        return bool(said)

    def withholds(self, name: str, is_directory: bool) -> bool:
        """Whether a .zenrayignore names an entry of this directory."""
        return bool(_first_verdict(self.own, f"{self.path}{name}/" if is_directory else self.path + name))

    def below(self, name: str) -> DirectoryRules:
        """Those of a directory in this one."""
        path = f"{self.path}{name}/"
        own = _read_rules(self.root / path / OWN_RULES, len(path))
        git = _read_rules(self.root / path / GIT_RULES, len(path))
        return DirectoryRules(self.root, path, own + self.own, git + self.git)


class IgnoreRules:
    """The rules of a tree, read when they are needed and kept: take new ones to see changes of rule files.

    In a git repository the rules above `root` hold too, and .git/info/exclude.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(os.path.abspath(root))
        own, git = _rules_above(self.root)
        own = _read_rules(self.root / OWN_RULES, 0) + own
        git = _read_rules(self.root / GIT_RULES, 0) + git
        self.top = DirectoryRules(self.root, "", own, git)
        self._of_directory = lru_cache(maxsize=1024)(self._read_directory)
        self._private_of = lru_cache(maxsize=4096)(self._find_private)
        self._withheld_of = lru_cache(maxsize=4096)(self._find_withheld)

    def is_ignored(self, path: str, is_directory: bool = False) -> bool:
        """Whether a path relative to the root, or a directory it lies in, is left alone. Paths out of the root are."""
        parts = [part for part in path.replace(os.sep, "/").split("/") if part not in ("", ".")]
        if not parts or ".." in parts or path.startswith("/"):
            return True
        if len(parts) > _MAX_DEPTH or "\0" in path:  # No file of a tree has such a path.
            return True
        rules = self._of_directory("/".join(parts[:-1]))
        return rules is None or rules.ignores(parts[-1], is_directory)

    def is_private(self, path: str) -> bool:
        """Whether a file's text must not leave it: it is ignored, or made to hold secrets."""
        return self._private_of(path)

    def is_withheld(self, path: str) -> bool:
        """Whether a .zenrayignore names a file or a directory it lies in: then not even its own editor is served."""
        return self._withheld_of(path)

    def _find_withheld(self, path: str) -> bool:
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        if ".." in parts or len(parts) > _MAX_DEPTH or "\0" in path:
            return False
        rules = self.top
        for at, name in enumerate(parts):
            if rules.withholds(name, is_directory=at < len(parts) - 1):
                return True
            rules = rules.below(name) if at < len(parts) - 1 else rules
        return False

    def _find_private(self, path: str) -> bool:
        """An editor on Windows may name folders of this tree its own way."""
        ways = {path, path.replace("\\", "/")}
        return is_secret_file(path) or any(self.is_ignored(way) for way in ways)

    def _read_directory(self, path: str) -> DirectoryRules | None:
        """None where the directory is ignored."""
        if not path:
            return self.top
        parent, _, name = path.rpartition("/")
        rules = self._of_directory(parent)
        return None if rules is None or rules.ignores(name, is_directory=True) else rules.below(name)


def parse_rules(lines: Iterable[str]) -> Rules:
    """The rules in lines of a .gitignore. What lies below a directory is for the walk from the top to decide."""
    rules = []
    for line in lines:
        # A line that matches nothing, such as a lone "!" or "[z-a]", raises.
        with suppress(GitIgnorePatternError, re.error), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[a]" is no set of sets, here or ever
            parsed = GitIgnoreSpecPattern(_whole_path(line))
            if parsed.regex is not None and parsed.include is not None:
                rules.append((_within_names(parsed.regex), parsed.include))
    return tuple(reversed(rules))


def _whole_path(line: str) -> str:
    """The line in a form whose translation by pathspec has no shortcut: `*`, `x/**` and the like are translated to
    "begins with", which also matches what a later line took back."""
    sign = "!" if line.startswith("!") else ""
    body = line[len(sign) :].rstrip(" ") if not line.endswith("\\ ") else line[len(sign) :]
    slash = "/" if body.endswith("/") else ""
    segments = body.removesuffix("/").split("/")
    if segments[-1] == "**":
        segments[-1:] = ["**", "*"] if len(segments) > 1 else ["*"]
    if segments[-1] == "*":
        segments[-1] = "?*"
    return sign + "/".join(segments) + slash


_STAR, _NO_SLASH = "[^/]*", "(?!/)"
_CLASS = re.compile(r"(?P<escaped>\\.)|\[\^?\]?(?:\\.|[^\\\]])*\]", re.DOTALL)


def _within_names(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """A pattern of pathspec's made to match as git does, and in one pass.

    A class such as `[!a]` matches no slash. What stands between two stars of one name is right where it comes first:
    going back over them, `*a*a*a*a*a*b` takes minutes for a long name (in git too).
    """
    guarded = _CLASS.sub(
        lambda found: found[0] if found["escaped"] or found[0] == "[^/]" else _NO_SLASH + found[0], pattern.pattern
    )
    first, *parts = guarded.split(_STAR)
    made = first
    for place, part in enumerate(parts, 1):
        is_in_one_name = "/" not in part.replace("[^/]", "").replace(_NO_SLASH, "")
        made += f"(?>[^/]*?{part})" if place < len(parts) and is_in_one_name else _STAR + part
    return re.compile(made)


def _first_verdict(files: tuple[_RuleFile, ...], path: str) -> bool | None:
    for file in files:
        said = file.verdict(path)
        if said is not None:
            return said
    return None


def _rules_above(root: Path) -> tuple[tuple[_RuleFile, ...], tuple[_RuleFile, ...]]:
    """The rule files between `root` and the top of its git repository, the nearest first; none outside of one."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if top is None:
        return (), ()
    own: tuple[_RuleFile, ...] = ()
    git: tuple[_RuleFile, ...] = ()
    for folder in root.parents if root != top else ():
        above = root.relative_to(folder).as_posix() + "/"
        own += _read_rules(folder / OWN_RULES, 0, above)
        git += _read_rules(folder / GIT_RULES, 0, above)
        if folder == top:
            break
    above = "" if root == top else root.relative_to(top).as_posix() + "/"
    return own, git + _read_rules(top / ".git" / "info" / "exclude", 0, above)


def _read_rules(path: Path, depth: int, above: str = "") -> tuple[_RuleFile, ...]:
    """The rules of a file; empty where there is none or it says nothing."""
    try:
        status = os.stat(path)
        rules = _rules_of(path, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else ()
    except OSError:
        return ()
    return (_RuleFile(rules, depth, above),) if rules else ()


@lru_cache(maxsize=512)
def _rules_of(path: Path, mtime_ns: int, size: int) -> Rules:
    """The rules in a file of this time and size: to translate a hundred lines takes milliseconds."""
    with path.open("rb") as file:
        text = file.read(_MAX_RULE_BYTES).removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    return parse_rules(line.removesuffix("\r") for line in text.split("\n"))


@lru_cache(maxsize=1)
def _built_in() -> _RuleFile:
    return _RuleFile(parse_rules(_BUILT_IN.split()))
