"""Tokenizers that make planning hard, documents, and how to read a segment back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import strategies as st

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.teacher_logits.model import Mode, PackedSequence, Segment
from zenray.model.tokenizer import ByteTokenizer, Tokenizer


class RunTokenizer(ByteTokenizer):
    """One token for 2, 4 … 64 times the same byte. Cutting `a` * 64, one token, may leave eleven of it: what real
    tokenizers do at a split, only worse."""

    RUNS = (64, 32, 16, 8, 4, 2)

    def __init__(self) -> None:
        super().__init__(264 + 256 * len(self.RUNS))

    def _encode(self, text: str, data: bytes) -> list[int]:
        ids: list[int] = []
        for run in re.finditer(rb"(.)\1*", data, re.DOTALL):
            left, byte = len(run[0]), run[0][0]
            for number, length in enumerate(self.RUNS):
                ids += [264 + 256 * number + byte] * (left // length)
                left %= length
            ids += [byte] * left
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < 264:
            return super().token_bytes(token_id)
        number, byte = divmod(token_id - 264, 256)
        return bytes((byte,)) * self.RUNS[number]


class BosTokenizer(ByteTokenizer):
    """Of a model that wants a token before all it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.bos_token_id, self.add_bos = 261, True


TOKENIZERS: tuple[Tokenizer, ...] = (ByteTokenizer(), RunTokenizer(), BosTokenizer())

_WORDS = st.sampled_from(
    ["a", "é", "日", "🙂", "\n", "\r\n", " ", "x" * 70, "    ", "def f():\n", "<|fim_middle|>", "<|endoftext|>"]
)
TEXTS = st.lists(_WORDS, min_size=1, max_size=60).map("".join)


def document(text: str, path: str = "a.py", repository: str = "r") -> SourceDocument:
    return SourceDocument(path, text, repository, revision="1")


def documents_of(texts: Iterable[str]) -> list[SourceDocument]:
    """Each under a path of its own."""
    return [document(text, f"{number}.py") for number, text in enumerate(texts)]


@dataclass(frozen=True, slots=True)
class Read:
    """A segment's text in its document's order. `split` is what was told apart: for SPM prefix and middle are one."""

    text: str
    split: tuple[str, ...]


def read_infill(segment: Segment, tokenizer: Tokenizer, end_of_text: int = 256) -> Read:
    """Takes a segment apart by its control tokens, which must stand where the format has them and nowhere else."""
    fim = tokenizer.fim
    assert fim is not None
    ids = list(segment.token_ids)
    if tokenizer.add_bos:
        assert ids.pop(0) == tokenizer.bos_token_id
    places = [index for index, each in enumerate(ids) if each in tokenizer.control_token_ids]
    assert [ids[place] for place in places] == [fim.prefix, fim.suffix, fim.middle, end_of_text]
    first, second, third, last = places
    assert (first, last) == (0, len(ids) - 1)
    parts = [tokenizer.decode(ids[begin + 1 : end]) for begin, end in ((0, second), (second, third), (third, last))]
    if segment.mode is Mode.PSM:
        prefix, suffix, middle = parts
        return Read(prefix + middle + suffix, (prefix, middle, suffix))
    assert segment.mode is Mode.SPM and second == 1
    _, suffix, run = parts
    return Read(run + suffix, (run, suffix))


def by_path(sequences: Iterable[PackedSequence]) -> dict[str, list[Segment]]:
    """Segments of each document in its order."""
    found: defaultdict[str, list[Segment]] = defaultdict(list)
    for sequence in sequences:
        for segment in sequence.segments:
            found[segment.path].append(segment)
    return {path: sorted(segments, key=lambda each: each.window) for path, segments in found.items()}
