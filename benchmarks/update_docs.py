#!/usr/bin/env python
"""Write the tables of docs/benchmarks.md again from reports.

    python benchmarks/update_docs.py REPORT.json[=BLOCK] ... [--doc docs/benchmarks.md]

Takes what compare_peers.py, `zenray bench overhead --json` and `zenray bench speculative --json` wrote; each fills
its own block, or the one that is named.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from zenray.bench.document import update_document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", metavar="REPORT[=BLOCK]")
    parser.add_argument("--doc", type=Path, default=Path("docs/benchmarks.md"))
    options = parser.parse_args()
    text = options.doc.read_text(encoding="utf-8")
    for report in options.reports:
        path, _, block = report.partition("=")
        text = update_document(text, json.loads(Path(path).read_text(encoding="utf-8")), block)
    options.doc.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
