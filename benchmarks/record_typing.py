#!/usr/bin/env python
"""Record the typing sessions that ship with zenray again.

    python benchmarks/record_typing.py LLAMA_CPP [--out zenray/bench/data/typing]

Needs this repository's history and the sources of llama.cpp as vendored in the sdist of llama-cpp-python 0.3.36
(its user interface is TypeScript under the MIT licence). The same sources and seeds give the same files.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import dataclass
from pathlib import Path

from zenray.bench.typing_sessions import write_session
from zenray.bench.typing_typist import Passage, SourceFile, record

REVISION = "c789271"
OURS = (f"zenray at {REVISION}", "Apache-2.0")
THEIRS = ("llama.cpp, tools/ui, as in llama-cpp-python 0.3.36", "MIT")
UTILS = "tools/ui/src/lib/utils"


@dataclass(frozen=True)
class Plan:
    """A session: the file typed in first, what else is open, and what is typed."""

    name: str
    language: str
    paths: tuple[str, ...]
    passages: tuple[Passage, ...]


BLOCKS, SCHEDULER = "zenray/engine/blocks.py", "zenray/engine/scheduler.py"
RECYCLING, DRAFTER = "zenray/speculative/recycling.py", "zenray/speculative/drafter.py"
PLANNING, PLACEMENT = "zenray/experts/planning.py", "zenray/experts/placement.py"
ROUTE, SIMD = "zenray/ops/csrc/route.cpp", "zenray/ops/csrc/simd.h"
CACHE, SEARCH, URL = f"{UTILS}/cache-ttl.ts", f"{UTILS}/search-results.ts", f"{UTILS}/url.ts"

PLANS = (
    Plan(
        "python-blocks",
        "python",
        (BLOCKS, SCHEDULER, "zenray/engine/sequence.py"),
        (
            Passage(
                BLOCKS,
                '"""Blocks `allocate` can hand out."""',
                "\n        return len(self._free) + len(self._idle)",
            ),
            Passage(
                BLOCKS,
                'are unreferenced, and so counted as available."""',
                "\n        count = 0\n        for block_hash in hashes:\n"
                "            if block_hash not in self._block_of:\n"
                "                break\n            count += self._references[self._block_of[block_hash]] == 0\n"
                "        return count",
            ),
            Passage(SCHEDULER, "    def _available_beside(", ""),
            Passage(
                SCHEDULER,
                "kept = self._pool.blocks_for(len(sequence.token_ids))",
                "\n        self._pool.release(sequence.block_ids[kept:])\n        del sequence.block_ids[kept:]",
            ),
        ),
    ),
    Plan(
        "python-recycling",
        "python",
        (RECYCLING, DRAFTER, "zenray/engine/speculation.py"),
        (
            Passage(RECYCLING, "from __future__ import annotations\n\n", "from array import array\n"),
            Passage(
                RECYCLING,
                'and its class; None when none is known."""',
                "\n        found = None\n        for length, (slot, tag) in enumerate(_places(context)):\n"
                "            if self._tags[slot] == tag:\n"
                "                found = self._successors[slot], "
                "length * (_MAX_CONFIRMED + 1) + self._confirmed[slot]\n"
                "        return found",
            ),
            Passage(
                RECYCLING,
                "            token_ids.append(next_id)\n",
                "            classes.append(token_class)\n"
                "            context = [*context[1 - MAX_CONTEXT :], next_id]\n",
            ),
        ),
    ),
    Plan(
        "python-planning",
        "python",
        (PLANNING, PLACEMENT, "zenray/experts/upkeep.py"),
        (
            Passage(
                PLANNING,
                'among shards that hold anything.\n    """\n',
                "    num_shards = max(1, len(placement.shards))\n"
                "    return max(1.0, num_shards * _busiest_share(placement, load))\n",
            ),
            Passage(PLACEMENT, "class ExpertPlacement", ""),
            Passage(
                PLANNING,
                "            shard = min(having_room, key=lambda shard: "
                "(busy[shard], len(additions.get(shard, ())), -room[shard]))\n",
                "            busy[shard] += shares[expert]\n            room[shard] -= 1\n"
                "            additions.setdefault(shard, []).append(ExpertId(layer, expert))\n",
            ),
            Passage(
                PLANNING,
                'shards by `WORTHWHILE_GAIN`.\n    """\n',
                "    if current.missing or target.shards - current.shards "
                "or _total_copies(target) > _total_copies(current):\n        return True\n",
            ),
        ),
    ),
    Plan(
        "cpp-route",
        "cpp",
        (ROUTE, SIMD, "zenray/ops/csrc/common.h"),
        (
            Passage(
                ROUTE,
                "void softmax(float* scores, int64_t num_experts) {\n",
                "    const float largest = *std::max_element(scores, scores + num_experts);\n"
                "    for (int64_t e = 0; e < num_experts; ++e) scores[e] = exp_approx(scores[e] - largest);\n"
                "    float sum = 0.0f;\n    for (int64_t e = 0; e < num_experts; ++e) sum += scores[e];\n",
            ),
            Passage(
                SIMD,
                "        _mm512_mask_storeu_ps(static_cast<float*>(out) + at, mask, value);\n",
                "    } else {\n        _mm256_mask_storeu_epi16(static_cast<bf16*>(out) + at, mask, narrow(value));\n",
            ),
            Passage(
                ROUTE,
                "    if (!normalise) return;\n",
                "    for (int64_t k = 0; k < num_chosen; ++k) weights[k] /= sum;\n",
            ),
        ),
    ),
    Plan(
        "typescript-cache",
        "typescript",
        (CACHE, f"{UTILS}/debounce.ts", f"{UTILS}/formatters.ts"),
        (
            Passage(
                CACHE,
                "set(key: K, value: V, customTtlMs?: number): void {\n\t\t// Evict oldest entries if at capacity\n",
                "\t\tif (this.cache.size >= this.maxEntries && !this.cache.has(key)) {\n"
                "\t\t\tthis.evictOldest();\n\t\t}\n",
            ),
            Passage(
                CACHE,
                "\t\tentry.expiresAt = now + this.ttlMs;\n",
                "\t\tentry.lastAccessed = now;\n\n\t\treturn true;\n",
            ),
            Passage(
                CACHE,
                "for (const [key, entry] of this.cache) {\n",
                "\t\t\tif (entry.lastAccessed < oldestTime) {\n\t\t\t\toldestTime = entry.lastAccessed;\n"
                "\t\t\t\toldestKey = key;\n\t\t\t}\n",
            ),
        ),
    ),
    Plan(
        "typescript-search",
        "typescript",
        (SEARCH, URL, f"{UTILS}/text.ts"),
        (
            Passage(
                SEARCH,
                "/** Bounded cache for extractSearchQuery results. */\n",
                "const SEARCH_QUERY_CACHE_MAX_SIZE = 32;\n",
            ),
            Passage(
                SEARCH,
                "let buffer: string[] = [];\n\n",
                "\tfor (const line of lines) {\n\t\tif (SEPARATOR_LINE_RE.test(line)) {\n"
                "\t\t\tif (buffer.length > 0) {\n"
                "\t\t\t\tchunks.push(buffer.join('\\n'));\n\t\t\t\tbuffer = [];\n\t\t\t}\n",
            ),
            Passage(URL, "export function extractRootDomain(", ""),
            Passage(
                SEARCH,
                "export function faviconForUrl(url: string): string | null {\n\ttry {\n",
                "\t\tconst parsed = new URL(url);\n\n"
                "\t\tif (!RESOLVABLE_URL_PROTOCOLS.includes(parsed.protocol)) return null;\n",
            ),
        ),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path, help="folder with the sources of llama.cpp")
    parser.add_argument("--out", type=Path, default=Path("zenray/bench/data/typing"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, plan in enumerate(PLANS):
        ours = plan.language != "typescript"
        source, licence = OURS if ours else THEIRS
        read = _at_revision if ours else lambda path: (options.llama_cpp / path).read_text("utf-8")
        files = [SourceFile(path, plan.language, read(path)) for path in plan.paths]
        session = record(plan.name, files, plan.passages, seed, source, licence)
        write_session(session, options.out / f"{plan.name}.jsonl.gz")
        print(f"{plan.name}: {session.duration_ms / 1000:.0f} s, {len(session.events)} events")


def _at_revision(path: str) -> str:
    """The file as it was, whatever the working tree holds."""
    shown = subprocess.run(["git", "show", f"{REVISION}:{path}"], capture_output=True, check=True, text=True)  # noqa: S607
    return shown.stdout


if __name__ == "__main__":
    main()
