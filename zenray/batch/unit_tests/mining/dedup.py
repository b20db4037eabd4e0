"""Which functions say the same: exactly, by their normalised syntax trees; nearly, by MinHash and then exact Jaccard.

Shingles are runs of five tokens of the normalised source (Broder 1997). 128 permutations in 16 bands of 8 rows find a
pair of similarity s with probability 1 - (1 - s^8)^16: 0.95 at s = 0.8, 0.9999 at 0.9 (Leskovec et al., Mining of
Massive Datasets, section 3.4). A candidate pair counts when its exact Jaccard similarity is at least 0.8.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Sequence
from copy import deepcopy
from hashlib import blake2b
from typing import Any

from rensa import RMinHash

from zenray.batch.unit_tests.mining.module_names import DEFINITIONS, Definition, body_without_docstring

NUM_PERMUTATIONS, NUM_BANDS = 128, 16
LEAST_SIMILARITY = 0.8
_ROWS_PER_BAND = NUM_PERMUTATIONS // NUM_BANDS
_SEED = 6
_SHINGLE_TOKENS = 5

Shingles = frozenset[str]


def normalised_source(node: Definition) -> str:
    """A function's source without docstrings, comments, layout and annotations, under a name that all share."""
    bare = deepcopy(node)
    bare.name, bare.decorator_list = "f", []
    return ast.unparse(ast.fix_missing_locations(_Normalised().visit(bare)))


def exact_key(source: str) -> bytes:
    """Equal for functions with equal normalised sources."""
    return blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def shingles_of(source: str) -> Shingles:
    """All runs of five tokens of a normalised source; of a shorter one, itself."""
    ignored = (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [
        token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in ignored
    ]
    count = max(1, len(tokens) - _SHINGLE_TOKENS + 1)
    return frozenset("\x1f".join(tokens[at : at + _SHINGLE_TOKENS]) for at in range(count))


def jaccard(left: Shingles, right: Shingles) -> float:
    """Shared shingles by all shingles."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if left or right else 1.0


def near_duplicates(documents: Sequence[Shingles]) -> dict[int, int]:
    """Of each document that an earlier kept one stands for: which. Depends on the order of `documents` alone."""
    digests = RMinHash.digests_from_token_sets([sorted(each) for each in documents], NUM_PERMUTATIONS, _SEED)
    kept_by_band: dict[tuple[int, ...], list[int]] = {}
    stands_for: dict[int, int] = {}
    for number, digest in enumerate(digests):
        bands = [(band, *digest[band * _ROWS_PER_BAND : (band + 1) * _ROWS_PER_BAND]) for band in range(NUM_BANDS)]
        candidates = sorted({other for band in bands for other in kept_by_band.get(band, ())})
        found = next((each for each in candidates if _is_near(documents[each], documents[number])), None)
        if found is not None:
            stands_for[number] = found
            continue
        for band in bands:
            kept_by_band.setdefault(band, []).append(number)
    return stands_for


def _is_near(left: Shingles, right: Shingles) -> bool:
    return jaccard(left, right) >= LEAST_SIMILARITY


class _Normalised(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, (*DEFINITIONS, ast.ClassDef)):
            node.body = body_without_docstring(node) or [ast.Pass()]
        if isinstance(node, DEFINITIONS):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            return super().visit(ast.Assign([node.target], node.value, lineno=node.lineno))
        self.generic_visit(node)
        return node
