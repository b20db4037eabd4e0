"""What a plan holds and what was left out, for people and for reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from zenray.batch.teacher_logits.model import Segment


@dataclass(slots=True)
class PlanAccount:
    """Kept while a plan is made. A document or window given is either planned or left out for one reason."""

    num_documents: int = 0
    num_planned_documents: int = 0
    documents_left_out: Counter[str] = field(default_factory=Counter)
    windows_left_out: Counter[str] = field(default_factory=Counter)
    num_sequences: int = 0
    window_tokens: int = 0
    num_tokens: int = 0
    num_scored: int = 0
    segments_by_mode: Counter[str] = field(default_factory=Counter)
    scored_by_mode: Counter[str] = field(default_factory=Counter)
    scored_by_language: Counter[str] = field(default_factory=Counter)

    def add(self, segment: Segment) -> None:
        self.num_tokens += len(segment.token_ids)
        self.num_scored += segment.num_scored
        self.segments_by_mode[segment.mode.value] += 1
        self.scored_by_mode[segment.mode.value] += segment.num_scored
        self.scored_by_language[segment.language] += segment.num_scored

    @property
    def num_segments(self) -> int:
        return self.segments_by_mode.total()

    @property
    def num_unscored(self) -> int:
        """Tokens that only give context: each segment's first and the overlaps."""
        return self.num_tokens - self.num_scored

    @property
    def packing_efficiency(self) -> float:
        """Tokens for each token there is room for."""
        return self.num_tokens / max(1, self.num_sequences * self.window_tokens)

    def to_json(self) -> dict[str, Any]:
        return {
            "num_documents": self.num_documents,
            "num_planned_documents": self.num_planned_documents,
            "documents_left_out": dict(sorted(self.documents_left_out.items())),
            "windows_left_out": dict(sorted(self.windows_left_out.items())),
            "num_sequences": self.num_sequences,
            "num_segments": self.num_segments,
            "num_tokens": self.num_tokens,
            "num_scored": self.num_scored,
            "num_unscored": self.num_unscored,
            "packing_efficiency": round(self.packing_efficiency, 6),
            "segments_by_mode": dict(sorted(self.segments_by_mode.items())),
            "scored_by_mode": dict(sorted(self.scored_by_mode.items())),
            "scored_by_language": dict(sorted(self.scored_by_language.items())),
        }
