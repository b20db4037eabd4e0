"""Which language a file is in, and what its comments look like."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context.languages.registry import comment, language, language_of
from zenray.context.languages.table import AMBIGUOUS_EXTENSIONS, FIRST_LINES, LANGUAGES, Language

LSP_IDS = """
abap bat bibtex clojure coffeescript c cpp csharp css d pascal diff dart dockerfile elixir erlang fsharp git-commit
git-rebase go groovy handlebars haskell html ini java javascript javascriptreact json latex less lua makefile markdown
objective-c objective-cpp perl perl6 php plaintext powershell pug python r razor ruby rust scss sass scala shellscript
sql swift typescript typescriptreact vb xml xsl yaml
"""


@pytest.mark.parametrize(
    ("path", "language_id"),
    [
        ("src/a.py", "python"),
        ("C:\\work\\Main.RS", "rust"),
        ("a/Makefile", "makefile"),
        ("Makefile.am", "makefile"),
        ("Dockerfile", "dockerfile"),
        ("docker/Dockerfile.dev", "dockerfile"),
        ("x.tsx", "typescriptreact"),
        ("x.d.ts", "typescript"),
        ("a.html.erb", "erb"),
        ("build.gradle.kts", "kotlin"),
        ("requirements.txt", "requirements"),
        ("notes.txt", "plaintext"),
        (".bashrc", "shellscript"),
        (".env.local", "dotenv"),
        ("a.b/c", ""),
        ("x.unknown", ""),
        ("py", ""),
        (".", ""),
        ("", ""),
    ],
)
def test_language_of_a_path(path: str, language_id: str) -> None:
    assert language_of(path) == language_id


@pytest.mark.parametrize(
    ("first_line", "language_id"),
    [
        ("#!/bin/sh", "shellscript"),
        ("#! /usr/bin/python3.11 -u", "python"),
        ("#!/usr/bin/env python", "python"),
        ("#!/usr/bin/env -S python3 -u", "python"),
        ("#!/usr/bin/env -S DEBUG=1 node --inspect", "javascript"),
        ("\ufeff#!/usr/local/bin/ruby\r", "ruby"),
        ("// -*- C++ -*-", "cpp"),
        ("# -*- mode: python; coding: utf-8 -*-", "python"),
        ("# vim: set ft=perl :", "perl"),
        ("#!/opt/unheard-of", ""),
        ("#!", ""),
        ("#!/usr/bin/env", ""),
        ("hello", ""),
        ("", ""),
    ],
)
def test_a_file_without_an_extension_speaks_by_its_first_line(first_line: str, language_id: str) -> None:
    assert language_of("bin/tool", first_line) == language_id


@pytest.mark.parametrize(
    ("path", "first_line", "language_id"),
    [
        ("a.h", "#pragma once", "cpp"),
        ("a.h", "/* -*- mode: c; tab-width: 4 -*- */", "c"),
        ("a.h", "#import <Foundation/Foundation.h>", "objective-c"),
        ("a.m", "#import <Foundation/Foundation.h>", "objective-c"),
        ("a.m", "function y = f(x)", "matlab"),
        ("a.pl", "#!/usr/bin/perl -w", "perl"),
        ("a.pl", ":- module(a, []).", "prolog"),
        ("a.t", "#!/usr/bin/env raku", "perl6"),
        ("a.v", "module adder(input a);", "verilog"),
        ("a.v", "module main", "v"),
        ("a.v", "Require Import List.", "coq"),
        ("a.py", "#!/bin/sh", "python"),
        ("build", "load('a.bzl', 'b')", "starlark"),
        ("build", "#!/bin/bash", "shellscript"),
        ("Makefile", "#!/usr/bin/make -f", "makefile"),
    ],
)
def test_the_first_line_decides_between_languages_that_share_an_extension(
    path: str, first_line: str, language_id: str
) -> None:
    assert language_of(path, first_line) == language_id


def test_enough_languages_are_known() -> None:
    assert len(LANGUAGES) >= 150
    assert sum(known.grammar is not None for known in LANGUAGES) >= 120
    assert sorted(set(LSP_IDS.split()) - {known.id for known in LANGUAGES}) == []


def test_names_are_unique() -> None:
    names = Counter(name for known in LANGUAGES for name in {known.id, *known.aliases})
    files = Counter(name for known in LANGUAGES for name in known.file_names)
    interpreters = Counter(name for known in LANGUAGES for name in known.interpreters)
    assert max(names.values()) == max(files.values()) == max(interpreters.values()) == 1


def test_every_shared_extension_is_declared_with_all_who_share_it() -> None:
    claims: dict[str, set[str]] = {}
    for known in LANGUAGES:
        for extension in known.extensions:
            claims.setdefault(extension, set()).add(known.id)
    shared = {extension: ids for extension, ids in claims.items() if len(ids) > 1}
    assert shared == {extension: set(ids) for extension, ids in AMBIGUOUS_EXTENSIONS.items()}
    assert all(language_id in AMBIGUOUS_EXTENSIONS[extension][1:] for extension, _, language_id in FIRST_LINES)


@pytest.mark.parametrize("known", LANGUAGES, ids=lambda known: known.id)
def test_a_row_is_well_formed_and_leads_back_to_its_language(known: Language) -> None:
    for extension in known.extensions:
        assert re.fullmatch(r"[^\s.][^\sA-Z]*", extension)
        assert language_of(f"a/b.{extension}") in AMBIGUOUS_EXTENSIONS.get(extension, (known.id,))
    for name in known.file_names:
        assert name == name.lower()
        assert language_of(f"a/{name.upper()}") == known.id
    for program in known.interpreters:
        assert language_of("a", f"#!/usr/bin/{program}") == known.id
        assert language_of("a", f"#!/usr/bin/env {program}-2.1 -x") == known.id
    for name in (known.id, known.id.upper(), *known.aliases):
        assert language(name) is known
    assert known.extensions or known.file_names
    assert known.block_comment is None or all(known.block_comment)


def test_comments() -> None:
    assert comment("python", "File: a.py") == "# File: a.py"
    assert comment("rust", "a") == "// a"
    assert comment("html", "a --> b") == "<!-- a - - > b -->"
    assert comment("css", "a */ b") == "/* a * / b */"
    assert comment("json", "a") == "# a"
    assert comment("never heard of", "a") == "# a"
    assert comment("sql", "") == "--"


@given(st.sampled_from(LANGUAGES), st.text())
def test_a_comment_is_one_line_that_ends_where_it_should(known: Language, text: str) -> None:
    line = comment(known.id, text)
    assert len(line.splitlines()) == 1
    assert line == line.rstrip()
    if not known.line_comment and known.block_comment:
        opening, closing = known.block_comment
        assert line.startswith(opening)
        assert line.index(closing, len(opening)) == len(line) - len(closing)


@given(st.text(), st.text())
def test_any_path_and_line_give_a_known_language_or_none(path: str, line: str) -> None:
    assert language_of(path, line) == "" or language(language_of(path, line)) is not None
    assert language_of("a", "#!" + line) == "" or language(language_of("a", "#!" + line)) is not None
