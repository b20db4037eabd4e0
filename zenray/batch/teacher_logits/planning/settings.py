"""What decides a plan, besides the documents, the tokenizer and the job's seed."""

from __future__ import annotations

from dataclasses import dataclass

from zenray.context.languages.registry import language
from zenray.errors import ConfigError

MIN_WINDOW_TOKENS = 16
"""Control tokens and a character's worth of text fit, whatever the tokenizer."""


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """`window_tokens` is the most tokens of a sequence, and so of a segment. Rates are probabilities.

    A document is transformed for infilling at `fim_rate`, its pieces suffix first at `spm_share`, prefix first else.
    `max_tokens` is how many scored tokens are enough (None: all there are): the documents are taken in a random order
    and the last one only as far as needed, so the plan exceeds it by less than a window. `languages` are LSP ids, empty
    for all (other names that editors have for them are understood); documents of fewer than `min_document_tokens`
    tokens are left out.

    Raises:
        ConfigError: a value out of its range.
    """

    window_tokens: int = 4096
    overlap_tokens: int = 512
    fim_rate: float = 0.5
    spm_share: float = 0.5
    max_tokens: int | None = None
    min_document_tokens: int = 16
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("fim_rate", "spm_share"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        _require(
            self.window_tokens >= MIN_WINDOW_TOKENS,
            "window_tokens",
            self.window_tokens,
            f"{MIN_WINDOW_TOKENS} and more",
        )
        # At least half of what a window reads is new: more overlap than that costs more than it gives.
        most, overlap = self.window_tokens // 2, self.overlap_tokens
        _require(1 <= overlap <= most, "overlap_tokens", overlap, f"1 to {most}, half of window_tokens")
        _require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", self.max_tokens, "1 and more, or none")
        _require(self.min_document_tokens >= 1, "min_document_tokens", self.min_document_tokens, "1 and more")
        object.__setattr__(self, "languages", tuple(sorted({_language_id(name) for name in self.languages})))


def _language_id(name: str) -> str:
    known = language(name)
    if known is None:
        raise ConfigError(
            f"languages has {name!r}; allowed: ids as editors have them, such as python, typescript, rust"
        )
    return known.id


def _require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    if not is_allowed:
        raise ConfigError(f"{name} is {value}; allowed: {allowed}")
