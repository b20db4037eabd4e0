"""What is found is cut at its seams, ranked by more than one signal, and said once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.context.pieces import ContextSource, Snippet
from zenray.context.prompt.candidates import Candidate, bm25, index_words
from zenray.context.prompt.chunks import MOST_CHARS, MOST_LINES, block_at, cut_into_chunks
from zenray.context.prompt.duplicates import telling_lines, without_duplicates
from zenray.context.prompt.query import query_at
from zenray.context.prompt.ranking import Ranked, RankingWeights, rank
from zenray.context.prompt.words import terms_of

texts = (
    st.lists(st.sampled_from(["a = 1", "", "  b", "\tc", "def f():", "}", "é", "x\r", "end"])).map("\n".join)
    | st.text()
)


def snippet(text: str, path: str = "a.py", line: int = 0, source: ContextSource = ContextSource.OPEN_FILE) -> Snippet:
    return Snippet(source, path, text, line)


@settings(deadline=None)
@given(texts)
def test_chunks_are_runs_of_whole_lines_in_order(text: str) -> None:
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    end = 0
    covered = set()
    for chunk in cut_into_chunks(text):
        assert end <= chunk.start_line < chunk.end_line <= chunk.start_line + MOST_LINES
        end = chunk.end_line
        own = chunk.text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
        assert own == "\n".join(expected[chunk.start_line : chunk.end_line])
        covered.update(range(chunk.start_line, chunk.end_line))
    assert all(number in covered for number, line in enumerate(expected) if line.strip())


def test_short_symbols_stay_whole_and_long_ones_break_at_their_parts() -> None:
    method = "    def method_{0}(self):\n" + "        work()\n" * 14 + "\n"
    source = "import os\n\n\nclass Long:\n" + "".join(method.format(n) for n in range(6)) + "\ndef short():\n    pass\n"
    starts = [chunk.text.lstrip().split("(")[0] for chunk in cut_into_chunks(source)]
    assert "def method_3" in starts
    assert all(chunk.text.count("def method") <= 2 for chunk in cut_into_chunks(source))
    braces = "fn main() {\n    one();\n\n    two();\n}\n\nfn other() {\n    three();\n}\n" * 5
    assert all(chunk.text.rstrip().endswith("}") for chunk in cut_into_chunks(braces))


def test_long_lines_are_left_out_and_many_long_ones_parted() -> None:
    minified = "first\n" + "x" * (MOST_CHARS + 1) + "\nlast\n"
    assert [(chunk.start_line, chunk.text) for chunk in cut_into_chunks(minified)] == [(0, "first\n"), (2, "last\n")]
    wide = "".join(f"{n:02}" + "y" * 300 + "\n" for n in range(36))
    chunks = cut_into_chunks(wide)
    assert "".join(chunk.text for chunk in chunks) == wide
    assert all(len(chunk.text) <= MOST_CHARS for chunk in chunks)


@settings(deadline=None)
@given(texts, st.data())
def test_a_block_is_what_begins_at_a_line(text: str, data: st.DataObject) -> None:
    for chunk in cut_into_chunks(text):
        num_lines = chunk.end_line - chunk.start_line
        line = data.draw(st.integers(0, num_lines - 1))
        block = block_at(chunk.text, line)
        assert line == block.start_line < block.end_line <= num_lines
        assert block.text in chunk.text


def test_words_of_identifiers() -> None:
    assert terms_of("parseHTTPResponse") == ("parsehttpresponse", "parse", "http", "response")
    assert terms_of("snake_case_2") == ("snake_case_2", "snake", "case")
    assert terms_of("größe_Maß") == ("größe_maß", "größe", "maß")
    assert terms_of("x" * 100) == ()


def test_bm25_prefers_rare_words_and_short_texts() -> None:
    index = index_words(
        [
            snippet("common common rare_thing\n"),
            snippet("common common common\n"),
            snippet("common rare_thing " + "filler " * 50 + "\n"),
            snippet("nothing here\n"),
        ]
    )
    (scores,) = bm25({"common": 1.0, "rare": 1.0}, [index])
    assert scores[0] > max(scores[1], scores[2]) > scores[3] == 0
    assert bm25({"common": 1.0}, []) == []


def test_the_query_stays_until_a_word_is_done_and_nearer_names_come_first() -> None:
    text = "alpha = load(path)\nbeta = alpha.tra\ngamma()\n"
    cursor = text.index("tra\n")
    queries = [query_at(text[: cursor + typed] + text[cursor + 3 :], cursor + typed) for typed in range(4)]
    assert queries[1] == queries[2] == queries[3]
    assert queries[3].names == ("alpha", "beta", "path", "load", "gamma")
    assert "tra" not in dict(queries[3].terms)


@settings(deadline=None)
@given(st.text(max_size=300), st.data())
def test_any_place_has_a_query(text: str, data: st.DataObject) -> None:
    query = query_at(text, data.draw(st.integers(0, len(text))))
    assert len(set(query.names)) == len(query.names)
    assert all(weight > 0 for _, weight in query.terms)


class TestRank:
    def test_a_snippet_that_several_signals_favour_wins(self) -> None:
        words_only = Candidate(snippet("a"), lexical=9.0)
        both = Candidate(snippet("b"), lexical=5.0, reach=0)
        old = Candidate(snippet("c"), recency=100.0)
        ranked = rank([old, words_only, both], RankingWeights())
        assert [each.candidate for each in ranked] == [both, words_only, old]
        assert ranked[0].score == pytest.approx(1 / 62 + 2 / 61)

    def test_a_source_can_be_favoured_or_shut_out(self) -> None:
        clip = Candidate(snippet("a", "", source=ContextSource.CLIPBOARD), lexical=1.0)
        file = Candidate(snippet("b"), lexical=2.0)
        loud = RankingWeights(sources={ContextSource.CLIPBOARD: 3.0})
        assert rank([file, clip], loud)[0].candidate is clip
        silent = RankingWeights(sources={ContextSource.CLIPBOARD: 0.0})
        assert [each.candidate for each in rank([file, clip], silent)] == [file]

    signals = st.none() | st.integers(0, 5)

    @settings(deadline=None)
    @given(st.lists(st.tuples(signals, signals, signals)), st.randoms())
    def test_the_order_of_arrival_does_not_matter(self, rows: list[tuple[int | None, ...]], random: object) -> None:
        candidates = [
            Candidate(snippet(f"{n}"), lexical=words, reach=reach, distance=distance)
            for n, (words, reach, distance) in enumerate(rows)
        ]
        shuffled = list(candidates)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        ranked = rank(candidates, RankingWeights())
        assert rank(shuffled, RankingWeights()) == ranked
        assert [each.score for each in ranked] == sorted((each.score for each in ranked), reverse=True)


class TestDuplicates:
    BODY = "".join(f"    value_{n} = compute({n})\n" for n in range(10))

    def ranked(self, *texts: str) -> list[Ranked]:
        return [Ranked(Candidate(snippet(text, f"{n}.py")), 1.0 - n / 100) for n, text in enumerate(texts)]

    def test_spacing_and_one_changed_line_make_no_difference(self) -> None:
        moved = self.BODY.replace("    ", "\t\t").replace(" = ", "  =  ")
        edited = self.BODY.replace("compute(9)", "compute(10)")
        other = "def something_else():\n    return 5 + other\n"
        kept, dropped = without_duplicates(self.ranked(self.BODY, moved, edited, other), frozenset())
        assert [each.candidate.snippet.path for each in kept] == ["0.py", "3.py"]
        assert [each.candidate.snippet.path for each in dropped] == ["1.py", "2.py"]

    def test_what_the_window_holds_is_a_duplicate_and_a_part_of_a_snippet_is_none(self) -> None:
        window = telling_lines("before()\n" + self.BODY + "after()\n")
        kept, dropped = without_duplicates(self.ranked(self.BODY), window)
        assert (kept, len(dropped)) == ([], 1)
        half = "".join(self.BODY.splitlines(keepends=True)[:5])
        assert len(without_duplicates(self.ranked(self.BODY, half), frozenset())[0]) == 2

    def test_brackets_alone_are_not_worth_a_token(self) -> None:
        assert without_duplicates(self.ranked("}\n)\n\n    else:\n"), frozenset())[0] == []

    @settings(deadline=None)
    @given(st.lists(texts, max_size=6))
    def test_nothing_is_lost_and_nothing_kept_twice(self, some: list[str]) -> None:
        ranked = self.ranked(*some)
        kept, dropped = without_duplicates(ranked, frozenset())
        assert sorted(map(id, kept + dropped)) == sorted(map(id, ranked))
        assert len({telling_lines(each.candidate.snippet.text) for each in kept}) == len(kept)
