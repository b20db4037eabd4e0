"""The texts that record formats are measured on: code in five languages out of source packages, planned as a job plans.

Any machine can fetch them with pip, and the packages' versions fix every token. Another body of text, the running
Python's standard library, gives token counts that know nothing of them.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from zenray.batch.inputs.read import read_documents
from zenray.batch.inputs.spec import InputSpec
from zenray.batch.teacher_logits.model import PackedSequence
from zenray.batch.teacher_logits.planning.plan import plan_sequences
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.model.tokenizer import Tokenizer

PACKAGES = {
    "python": "boltons==26.2.0",
    "rust": "tokenizers==0.13.3",
    "java": "JPype1==1.5.2",
    "cpp": "pybind11==2.13.6",
    "c": "hiredis==3.2.1",
}
"""The package that a language's documents are taken from."""
_SUFFIXES = {"python": ".py", "rust": ".rs", "java": ".java", "cpp": ".h,.hpp,.cpp", "c": ".c"}
_SEED = 0


@dataclass(frozen=True, slots=True)
class Texts:
    """`counts_V` of what is scored, as the job counts; `other_counts_V` of other texts. `sha256` tells two sets of
    sequences apart."""

    sequences: tuple[PackedSequence, ...]
    counts_V: np.ndarray
    other_counts_V: np.ndarray
    sha256: str

    @property
    def scored_by_language(self) -> dict[str, int]:
        counted: Counter[str] = Counter()
        for sequence in self.sequences:
            for segment in sequence.segments:
                counted[segment.language] += segment.num_scored
        return dict(sorted(counted.items()))


def fetch_packages(folder: Path) -> dict[str, Path]:
    """The source archive for every language, fetched once. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _archive(folder, package) for name, package in PACKAGES.items()}


def plan_texts(archives: dict[str, Path], tokenizer: Tokenizer, num_tokens: int) -> Texts:
    """About as many scored tokens of each language, as the job would arrange them; sequences of all in one order."""
    sequences: list[PackedSequence] = []
    counts_V = np.zeros(tokenizer.vocab_size, np.int64)
    each = -(-num_tokens // len(archives))
    for language, archive in archives.items():
        documents = read_documents(InputSpec.parse(f"{archive}#suffixes={_SUFFIXES[language]}"))
        plan = plan_sequences(documents, tokenizer, PlanSettings(max_tokens=each), _SEED, lambda _: None)
        sequences += plan.sequences
        counts_V += plan.counts_V
    sequences.sort(key=lambda sequence: sequence.row_id)
    digest = sha256("\n".join(sequence.row_id for sequence in sequences).encode()).hexdigest()
    return Texts(tuple(sequences), counts_V, _library_counts(tokenizer), digest)


def parts_of(sequences: Sequence[PackedSequence], num_parts: int) -> list[Sequence[PackedSequence]]:
    """Runs of sequences of about as many rows each, none of them empty."""
    num_parts = min(num_parts, len(sequences))
    ends_Q = np.cumsum([sequence.num_scored for sequence in sequences])
    cuts = np.unique(np.searchsorted(ends_Q, ends_Q[-1] * np.arange(num_parts) / num_parts))
    return [sequences[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(sequences)], strict=True)]


def _archive(folder: Path, package: str) -> Path:
    name, _, version = package.partition("==")

    def found() -> list[Path]:
        return [each for each in folder.glob(f"*-{version}.tar.gz") if each.name.lower().startswith(name.lower())]

    if not found():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
        subprocess.run([*command, package], check=True)
    return found()[0]


def _library_counts(tokenizer: Tokenizer) -> np.ndarray:
    counts_V = np.zeros(tokenizer.vocab_size, np.int64)
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        counts_V += np.bincount(tokenizer.encode(path.read_text(encoding="utf-8")), minlength=tokenizer.vocab_size)
    return counts_V
