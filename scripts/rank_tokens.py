"""Ranks a vocabulary by how often code uses each token, for trimmed draft heads (zenray.speculative.head_trim).

    python scripts/rank_tokens.py qwen2.5-coder-0.5b python=/usr/lib/python3 go=/usr/share/go c=SOURCES ...

Every NAME=FOLDER is one language and counts the same, however large its folder is: a token's weight is the sum of its
shares. Files are drawn in a fixed random order up to a number of megabytes per language; the same files give the same
ranking. The file is written into the package, under the vocabulary's digest.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from zenray.model.catalog import Catalog
from zenray.model.load import load_tokenizer
from zenray.model.tokenizer import Tokenizer
from zenray.speculative.head_trim import ranking_name

DATA_FOLDER = Path(__file__).parent.parent / "zenray" / "speculative" / "data"
SUFFIXES = {".py", ".go", ".rs", ".java", ".c", ".h", ".cc", ".cpp", ".hpp", ".ts", ".tsx", ".js", ".jsx", ".sh"}
MAX_FILE_BYTES = 1_000_000


def count_tokens(tokenizer: Tokenizer, folder: Path, max_bytes: int) -> tuple[np.ndarray, int]:
    """Occurrences of each id [V] in the folder's code, and the bytes that were read."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    random.Random(0).shuffle(files)
    num_bytes = 0
    for path in files:
        if num_bytes >= max_bytes:
            break
        data = path.read_bytes()[:MAX_FILE_BYTES]
        num_bytes += len(data)
        np.add.at(counts, tokenizer.encode(data.decode("utf-8", errors="ignore")), 1)
    return counts, num_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="catalog name or path; only its tokenizer is read")
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER", help="one language each")
    parser.add_argument("--megabytes", type=int, default=24, help="of each language")
    parser.add_argument("--keep", type=int, default=65_536, help="length of the ranking")
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(Catalog.load().resolve(arguments.model))
    shares = np.zeros(tokenizer.vocab_size)
    for item in arguments.folders:
        name, _, folder = item.partition("=")
        counts, num_bytes = count_tokens(tokenizer, Path(folder), arguments.megabytes * 2**20)
        if not counts.any():
            parser.error(f"{item}: no code in this folder")
        shares += counts / counts.sum()
        print(f"{name}: {num_bytes / 2**20:.1f} MiB, {counts.sum():,} tokens, {np.count_nonzero(counts):,} different")
    order = np.argsort(-shares, kind="stable")[: min(arguments.keep, np.count_nonzero(shares))].astype(np.uint32)
    DATA_FOLDER.mkdir(exist_ok=True)
    target = DATA_FOLDER / ranking_name(tokenizer)
    np.savez_compressed(target, token_ids=order)
    for count in (8192, 16_384, 32_768, len(order)):
        print(f"{count:>7,} tokens cover {shares[order[:count]].sum() / shares.sum():.3%}")
    print(f"{target}: {len(order):,} ids, {target.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
