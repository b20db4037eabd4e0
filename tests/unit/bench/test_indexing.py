"""The indexing benchmark measures trees it can count, and its report becomes a table."""

from __future__ import annotations

from pathlib import Path

from zenray.bench.document import update_document
from zenray.bench.indexing import measure
from zenray.bench.indexing_tree import write_tree
from zenray.bench.report import make_report


def test_every_file_is_counted_and_the_report_fills_its_block(tmp_path: Path) -> None:
    library = tmp_path / "library"
    write_tree(library, 40)
    (library / "site-packages").mkdir()
    (library / "site-packages" / "foreign.py").write_text("def foreign(): ...\n")
    made, generated, secrets = rows = measure(num_files=200, num_lookups=5, library=library)
    assert (made["files"], made["definitions"]) == (40, 160 + 10)  # a function is added to each of ten files
    assert (generated["files"], generated["definitions"]) == (200, 800 + 10)
    assert generated["changed_files"] == 10
    for row in (made, generated):
        assert row["source_mb"] > 0
        assert row["mb_per_s"] > 0
        assert row["all_mib"] >= row["parent_mib"] > 1
        assert row["definitions_first_ms"]["count"] == row["exports_again_ms"]["count"] == 5
    assert secrets["spans"] == 0
    settings = {"names": 16, "modules": 12, "lookups": 5}
    report = make_report("indexing", rows, prompts={}, settings=settings, bandwidth=None, foreign_cpu_share=0.25)
    written = update_document("a\n<!-- indexing:begin -->\n<!-- indexing:end -->\nb\n", report)
    assert "| files, definitions | 40, 170 | 200, 810 |" in written
    assert "16 names or 12 modules at once, 5 times" in written


def test_a_tree_is_the_same_for_the_same_number_of_files(tmp_path: Path) -> None:
    sizes = [write_tree(tmp_path / name, 60) for name in ("one", "two")]
    texts = [
        {path.relative_to(tmp_path / name): path.read_text() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    ]
    assert texts[0] == texts[1]
    assert sizes == [sum(len(text) for text in texts[0].values())] * 2
