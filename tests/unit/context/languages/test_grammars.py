"""Every grammar parses its language, in any thread, and gives up on input that would take too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_sitter import Node, Parser

from zenray.context.languages.grammars import MAX_LINE_BYTES, MAX_SOURCE_BYTES, grammar, num_syntax_errors, parse
from zenray.context.languages.table import LANGUAGES

SAMPLES: dict[str, str] = yaml.safe_load((Path(__file__).parent / "samples.yaml").read_text("utf-8"))
WITH_GRAMMAR = [known.id for known in LANGUAGES if known.grammar]


def test_there_is_a_sample_for_every_grammar() -> None:
    assert sorted(SAMPLES) == sorted(WITH_GRAMMAR)


@pytest.mark.parametrize("language_id", WITH_GRAMMAR)
def test_a_grammar_parses_its_sample(language_id: str) -> None:
    source = SAMPLES[language_id].encode()
    tree = parse(language_id, source)
    assert tree is not None
    assert num_syntax_errors(tree) == 0
    assert tree.root_node.named_child_count > 0


@pytest.mark.parametrize("language_id", ["", "plaintext", "coq", "never heard of"])
def test_no_tree_without_a_grammar(language_id: str) -> None:
    assert grammar(language_id) is None
    assert parse(language_id, b"a") is None


@pytest.mark.parametrize(
    ("source", "num_errors"),
    [("", 0), ("def f(x):\n    return x\n", 0), ("def f(:\n    return 1\n", 1), ("x = (1,\n", 1), ("a b\n$ c\n", 2)],
)
def test_errors_are_counted(source: str, num_errors: int) -> None:
    tree = parse("python", source.encode())
    assert tree is not None
    assert num_syntax_errors(tree) == num_errors


def test_missing_nodes_count_as_errors() -> None:
    tree = parse("c", b"int f() { return 1 }")
    assert tree is not None
    assert "MISSING" in str(tree.root_node)
    assert num_syntax_errors(tree) == 1


@settings(deadline=None)
@given(st.text(), st.sampled_from(["python", "typescript", "rust", "c", "shellscript", "markdown", "yaml"]))
def test_the_tree_is_the_one_of_a_plain_parse(text: str, language_id: str) -> None:
    source = text.encode("utf-8", "replace")
    rules = grammar(language_id)
    tree = parse(language_id, source)
    assert rules is not None
    assert tree is not None
    plain = Parser(rules).parse(source)
    assert str(tree.root_node) == str(plain.root_node)
    assert num_syntax_errors(tree) == sum(node.is_error or node.is_missing for node in _walk(plain.root_node))


def test_a_source_longer_than_a_chunk_parses_whole() -> None:
    source = b"".join(b"def f%d(x):\n    return '\xc3\xa9' * x\n" % number for number in range(4000))
    tree = parse("python", source)
    assert tree is not None
    assert tree.root_node.named_child_count == 4000
    assert num_syntax_errors(tree) == 0


def test_parsing_again_after_an_edit_uses_the_old_tree() -> None:
    source = b"a = 1\nb = 2\nc = 3\n"
    old = parse("python", source)
    assert old is not None
    old.edit(4, 5, 6, (0, 4), (0, 5), (0, 6))
    edited = b"a = 42\nb = 2\nc = 3\n"
    tree = parse("python", edited, old)
    fresh = parse("python", edited)
    assert tree is not None
    assert fresh is not None
    assert str(tree.root_node) == str(fresh.root_node)
    assert tree.root_node.end_byte == len(edited)


def test_threads_do_not_disturb_each_other() -> None:
    sources = [SAMPLES["python"].encode() * times for times in (1, 30, 400)] * 4
    expected = [str(Parser(grammar("python")).parse(source).root_node) for source in sources]
    together = threading.Barrier(4)

    def parse_all(_: int) -> list[str]:
        together.wait()
        return [str(parse("python", source).root_node) for source in sources]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(parse_all, range(4))) == [expected] * 4


def test_nodes_refuse_their_text() -> None:
    tree = parse("python", b"a = 1\n")
    assert tree is not None
    with pytest.raises(TypeError):
        _ = tree.root_node.text


@pytest.mark.parametrize(
    "source",
    [b"x" * (1 << 20), b"\n" * (MAX_SOURCE_BYTES + 1), b"a\n" * 1000 + b"a+" * MAX_LINE_BYTES + b"\nb\n"],
    ids=["one line of 1 MB", "too big", "a long line within"],
)
def test_too_big_a_source_is_not_parsed(source: bytes) -> None:
    assert parse("python", source) is None


def test_a_line_of_just_the_longest_is_parsed() -> None:
    longest = b"a" * MAX_LINE_BYTES
    assert parse("python", longest + b"\n" + longest + b"\n") is not None
    assert parse("python", longest + b"a\n") is None


@pytest.mark.parametrize("brackets", [b"(", b"[", b"{", b"((((\n", b"<%}{)(\"'` \\\n"])
@pytest.mark.parametrize("language_id", ["python", "cpp", "rust", "shellscript", "ruby"])
def test_hostile_input_ends(brackets: bytes, language_id: str) -> None:
    """By a limit or by an answer; the suite's own time limit is the judge of endless ones."""
    tree = parse(language_id, brackets * (100_000 // len(brackets)))
    assert tree is None or num_syntax_errors(tree) > 0


def _walk(node: Node) -> Iterator[Node]:
    nodes = [node]
    while nodes:
        node = nodes.pop()
        nodes += node.children
        yield node
