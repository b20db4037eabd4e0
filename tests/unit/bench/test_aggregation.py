"""The bench of context aggregation: what it counts, and the block it writes."""

from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from zenray.bench.aggregation import BLOCK_SIZE, GOAL_P95_MS, library_documents, measure, reused_tokens
from zenray.bench.document import update_document
from zenray.bench.report import make_report
from zenray.context.surroundings import Document, Surroundings
from zenray.model.tokenizer import ByteTokenizer

ids = st.lists(st.integers(0, 1), max_size=80)


@given(ids, ids, ids)
def test_whole_leading_blocks_are_reused(shared: list[int], before: list[int], after: list[int]) -> None:
    reused = reused_tokens(shared + before, shared + after)
    assert reused % BLOCK_SIZE == 0
    assert (shared + before)[:reused] == (shared + after)[:reused]
    assert reused >= len(shared) // BLOCK_SIZE * BLOCK_SIZE
    assert reused_tokens(shared, shared) == len(shared) // BLOCK_SIZE * BLOCK_SIZE


def test_a_measurement_fills_its_block() -> None:
    text = "".join(f"def area_{n}(width):\n    return width * {n}\n\n\n" for n in range(60))
    around = Surroundings(documents=(Document("other.py", "python", text.replace("area", "volume")),))
    row = measure(ByteTokenizer(), 600, 12, Document("main.py", "python", text), around)
    assert row.warm_ms.count == row.warm_cpu_ms.count == 11
    assert row.prompt_tokens.maximum is not None
    assert row.prompt_tokens.maximum <= 600
    assert 0.5 < row.reused_share < 1
    settings = {
        "keystrokes": 12, "lines": 240, "open_files": 1, "open_characters": len(text), "tokenizer": "bytes",
        "goal_p95_ms": GOAL_P95_MS,
    }  # fmt: skip
    report = make_report(
        "aggregation", [asdict(row)], prompts={}, settings=settings, bandwidth=None, foreign_cpu_share=0.25
    )
    page = update_document("a\n<!-- aggregation:begin -->\nold\n<!-- aggregation:end -->\nb\n", report)
    assert "old" not in page
    assert f"| {row.reused_share:.1%} |" in page
    assert "Other processes used 25% of the cores meanwhile." in page


def test_the_library_is_as_large_as_it_says() -> None:
    document, around = library_documents()
    assert document.text.count("\n") == 5_000
    assert len({each.path for each in around.documents}) == 20
