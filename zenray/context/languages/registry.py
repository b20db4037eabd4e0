"""Languages by the names and first lines of their files, and what a comment looks like in them."""

from __future__ import annotations

import re

from zenray.context.languages.table import AMBIGUOUS_EXTENSIONS, FIRST_LINES, LANGUAGES, Language

__all__ = ["Language", "comment", "language", "language_of"]

_BY_ID = {language.id: language for language in LANGUAGES}
_BY_ALIAS = {alias: language for language in LANGUAGES for alias in language.aliases} | _BY_ID
_BY_FILE_NAME = {name: language.id for language in LANGUAGES for name in language.file_names}
_BY_EXTENSION = {extension: language.id for language in LANGUAGES for extension in language.extensions} | {
    extension: candidates[0] for extension, candidates in AMBIGUOUS_EXTENSIONS.items()
}
_BY_INTERPRETER = {program: language.id for language in LANGUAGES for program in language.interpreters}

_MAX_FIRST_LINE = 500
_MODE_LINE = re.compile(r"-\*-\s*(?:.*?\bmode:\s*)?([\w+#.-]+?)\s*(?:;.*)?-\*-|\b(?:ft|filetype|syntax)=([\w.]+)", re.I)
_STEM = re.compile(r"(?<=.)\..*", re.S)
_VERSION = re.compile(r"-?\d+(\.\d+)*$")


def language(id: str) -> Language | None:
    """The language with this LSP id, or known to some editor by this name; None when there is none."""
    return _BY_ALIAS.get(id) or _BY_ALIAS.get(id.lower())


def language_of(path: str, first_line: str = "") -> str:
    """The id of the language a file is in; empty when nothing is known about it.

    Its name decides, then its extension, then what its first line says (a shebang, or a mode line of Emacs or Vim).
    The first line comes before a name without extension, which a script may have too (`build`), and before an
    extension that several languages use. Letter case does not matter.
    """
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    extensions = name.partition(".")[2]
    if name in _BY_FILE_NAME:
        return (not extensions and _of_first_line(first_line[:_MAX_FIRST_LINE])) or _BY_FILE_NAME[name]
    while extensions:
        if extensions in _BY_EXTENSION:
            return _of_extension(extensions, first_line[:_MAX_FIRST_LINE])
        extensions = extensions.partition(".")[2]
    return _of_first_line(first_line[:_MAX_FIRST_LINE]) or _BY_FILE_NAME.get(_STEM.sub("", name), "")


def comment(language_id: str, text: str) -> str:
    """`text` as a comment of one line, without a line end.

    Line breaks become spaces, and `text` cannot end a block comment. Languages without comments, and unknown ones,
    get `#`, which most models have seen at the top of such files.
    """
    text = " ".join(text.split())
    known = language(language_id)
    if known is None or (not known.line_comment and known.block_comment is None):
        return f"# {text}".rstrip()
    if known.line_comment or known.block_comment is None:
        return f"{known.line_comment} {text}".rstrip()
    opening, closing = known.block_comment
    return f"{opening} {text.replace(closing, ' '.join(closing))} {closing}"


def _of_extension(extension: str, first_line: str) -> str:
    """The language of a known extension."""
    candidates = AMBIGUOUS_EXTENSIONS.get(extension)
    if candidates is None or not first_line:
        return _BY_EXTENSION[extension]
    said = _of_first_line(first_line)
    if said in candidates:
        return said
    begin = first_line.lstrip("\ufeff \t")
    for among, pattern, language_id in FIRST_LINES:
        if among == extension and re.match(pattern, begin):
            return language_id
    return candidates[0]


def _of_first_line(line: str) -> str:
    """The language a shebang or a mode line names; empty when it names none."""
    line = line.lstrip("\ufeff")
    if line.startswith("#!"):
        program = _interpreter(line[2:])
        return _BY_INTERPRETER.get(program) or _BY_INTERPRETER.get(_VERSION.sub("", program), "")
    mode = _MODE_LINE.search(line)
    known = language(mode[1] or mode[2]) if mode else None
    return known.id if known else ""


def _interpreter(command: str) -> str:
    """The program a shebang runs, without its directory: `python3.11` in `/usr/bin/env -S python3.11 -u`."""
    words = command.split()
    programs = [word.rpartition("/")[2].lower() for word in words]
    if programs[:1] == ["env"]:
        programs = [
            program
            for program, word in zip(programs[1:], words[1:], strict=True)
            if not word.startswith("-") and "=" not in word
        ]
    return programs[0].removesuffix(".exe") if programs else ""
