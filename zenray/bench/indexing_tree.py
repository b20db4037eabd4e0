"""A large tree of small source files, the same for the same number of files."""

from __future__ import annotations

import random
from pathlib import Path

_FILES_PER_FOLDER = 40
_VERBS = ("load", "store", "parse", "merge", "index", "route", "frame", "score", "trace", "plan")
_NOUNS = ("cache", "token", "block", "queue", "shard", "batch", "model", "step", "window", "ledger")


def write_tree(root: Path, num_files: int) -> int:
    """Write modules of Python, TypeScript and Go into `root`, in folders of folders. Their bytes in all."""
    chance = random.Random(0)
    num_bytes = 0
    for number in range(num_files):
        folder = root / f"part{number // _FILES_PER_FOLDER // 50}" / f"room{number // _FILES_PER_FOLDER % 50}"
        if number % _FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True, exist_ok=True)
        extension, text = _module(chance, number)
        data = text.encode()
        (folder / f"m{number}.{extension}").write_bytes(data)
        num_bytes += len(data)
    return num_bytes


def _module(chance: random.Random, number: int) -> tuple[str, str]:
    names = [f"{chance.choice(_VERBS)}_{chance.choice(_NOUNS)}_{chance.randrange(number + 1)}" for _ in range(4)]
    extension = ("py", "py", "ts", "go")[number % 4]
    if extension == "py":
        parts = [f'def {name}(items, limit={number % 97}):\n    """Of module {number}."""\n' for name in names]
        bodies = [f"    return [item for item in items if item > limit + {place}]\n\n\n" for place in range(4)]
    elif extension == "ts":
        parts = [f"export function {name}(items: number[], limit = {number % 97}): number[] {{\n" for name in names]
        bodies = [f"  return items.filter((item) => item > limit + {place});\n}}\n\n" for place in range(4)]
    else:
        parts = [f"func {name}(items []int, limit int) int {{\n" for name in names]
        bodies = [f"\treturn len(items) + limit + {place}\n}}\n\n" for place in range(4)]
    head = f"package room{number}\n\n" if extension == "go" else ""
    return extension, head + "".join(part + body for part, body in zip(parts, bodies, strict=True))
