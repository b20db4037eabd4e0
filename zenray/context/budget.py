"""Fitting texts to a token budget: exact counts, whole lines where possible, and cuts that stay put.

Only a window of characters near the cursor is tokenised, so a large document costs what its kept part
costs. The kept part is always tokenised by itself, never sliced out of a longer tokenisation: the same
cut gives the same ids on the next keystroke, which is what the prefix cache needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from zenray.config import ContextSettings
from zenray.context.pieces import ContextSource
from zenray.context.prompt.ranking import RankingWeights
from zenray.context.tokens import PromptTokenizer

LayoutOrder = Literal["psm", "spm"]
"""Prefix, suffix, middle, or suffix, prefix, middle; see `layout`."""

_CHARS_PER_TOKEN = 4  # First guess for a window of code; a wrong guess costs one more tokenisation.
MOST_CHARS_PER_TOKEN = 32  # Text beyond this is no code (a flood of spaces); its budget is not filled.
_DEADLINE_SHARE = 0.5  # Of a deadline, for the prompt; the rest is for queueing and for the completion.
_LEAST_BUDGET = 128
_BORDER_TOKENS = 16  # The end of a cut text may tokenise differently from the same place in the whole.


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Sizes and shape of one prompt.

    `suffix_share` is the most of the budget text after the cursor gets, `snippet_share` the most that code from other
    places gets, the distant part of the text after the cursor among it; 0 looks at none. `prefill_tokens_per_s` is a
    measured rate; without one a deadline does not shrink the prompt.
    """

    context_length: int
    max_prompt_tokens: int
    suffix_share: float
    snippet_share: float = 0.4
    order: LayoutOrder = "psm"
    weights: RankingWeights = field(default_factory=RankingWeights)
    prefill_tokens_per_s: float | None = None

    @staticmethod
    def of(
        settings: ContextSettings,
        context_length: int,
        model_order: LayoutOrder = "psm",
        prefill_tokens_per_s: float | None = None,
    ) -> PromptLimits:
        """As configured, for a model that was trained on `model_order`."""
        named = {ContextSource(name): weight for name, weight in settings.source_weights.items()}
        weights = RankingWeights()
        return PromptLimits(
            context_length=context_length,
            max_prompt_tokens=settings.max_prompt_tokens,
            suffix_share=settings.suffix_share,
            snippet_share=settings.snippet_share,
            order=model_order if settings.layout == "auto" else settings.layout,
            weights=replace(weights, sources={**weights.sources, **named}),
            prefill_tokens_per_s=prefill_tokens_per_s,
        )


@dataclass(frozen=True, slots=True)
class FittedText:
    """The kept part of a text. `dropped_tokens` is estimated where the rest was never tokenised."""

    text: str
    token_ids: list[int]
    dropped_tokens: int = 0


def infill_budget(limits: PromptLimits, max_tokens: int) -> int:
    """Prompt tokens of an infill: its own limit, less where the context must also hold `max_tokens`.

    A `max_tokens` that asks for most of the context leaves the prompt half of it; the completion is then
    clipped to the other half.
    """
    room = max(limits.context_length - max_tokens, limits.context_length // 2)
    return min(limits.max_prompt_tokens, room)


def deadline_budget(budget: int, deadline_ms: int | None, prefill_tokens_per_s: float | None) -> int:
    """`budget`, or the tokens that can be computed in a part of the deadline where these are fewer.

    A measured rate wavers, and a prompt of another size is another prompt for the prefix cache: what fits is rounded
    down to a multiple of an eighth to a quarter of itself. At least `_LEAST_BUDGET` stay, with which a model can tell
    where it is.
    """
    if deadline_ms is None or prefill_tokens_per_s is None:
        return budget
    fitting = int(deadline_ms / 1000 * _DEADLINE_SHARE * prefill_tokens_per_s)
    grid = max(1, 1 << fitting.bit_length() >> 3)
    return min(budget, max(_LEAST_BUDGET, fitting // grid * grid))


@dataclass(frozen=True, slots=True)
class TooManyTokens:
    """A text beyond a limit; of a far longer one only the start was counted."""

    num_tokens: int
    exact: bool


def encode_within(text: str, limit: int, tokenizer: PromptTokenizer) -> list[int] | TooManyTokens:
    """The ids of `text`, or their number when there are more than `limit`."""
    window = 2 * _CHARS_PER_TOKEN * (limit + _BORDER_TOKENS)
    while window < len(text):
        counted = len(tokenizer.encode(text[:window])) - _BORDER_TOKENS
        if counted > limit:
            return TooManyTokens(counted, exact=False)
        window *= 2
    ids = tokenizer.encode(text)
    return ids if len(ids) <= limit else TooManyTokens(len(ids), exact=True)


def keep_end(text: str, budget: int, tokenizer: PromptTokenizer) -> FittedText:
    """A long end of `text` within `budget` tokens that starts at a stable place.

    The start is the first line start behind a multiple of G characters, G being a power of two between an
    eighth and a quarter of what fits. While someone types at the end, the start therefore stays where it
    is until G characters have been typed: the prompt keeps its beginning and the prefix cache keeps its
    use. Where lines are too long for that, the start falls inside a line.
    """
    if budget <= 0:
        return FittedText("", [], _estimate(text))
    window = _CHARS_PER_TOKEN * budget
    while True:
        begin = max(0, len(text) - window)
        ids = tokenizer.encode(text[begin:])
        if begin == 0 or len(ids) > budget + _BORDER_TOKENS or window >= MOST_CHARS_PER_TOKEN * budget:
            break
        window *= 2
    if begin == 0 and len(ids) <= budget:
        return FittedText(text, ids)
    num_tokens = len(ids) + begin * len(ids) // (len(text) - begin)
    earliest = max(begin, len(text) - _num_chars(ids[-budget:], tokenizer))
    start = _stable_start(text, earliest)
    while True:
        kept = tokenizer.encode(text[start:])
        if len(kept) <= budget:
            return FittedText(text[start:], kept, max(0, num_tokens - len(kept)))
        excess_chars = (len(text) - start) * (len(kept) - budget) // len(kept)
        start = _line_start(text, start + max(1, excess_chars), len(text))


def keep_start(text: str, budget: int, tokenizer: PromptTokenizer) -> FittedText:
    """The longest start of `text` within `budget` tokens: whole lines, unless the first is too long."""
    if budget <= 0:
        return FittedText("", [], _estimate(text))
    window = _CHARS_PER_TOKEN * budget
    while True:
        ids = tokenizer.encode(text[:window])
        if window >= min(len(text), MOST_CHARS_PER_TOKEN * budget) or len(ids) > budget + _BORDER_TOKENS:
            break
        window *= 2
    tokenised = min(window, len(text))
    if tokenised == len(text) and len(ids) <= budget:
        return FittedText(text, ids)
    num_tokens = len(ids) * len(text) // tokenised
    latest = min(tokenised, _num_chars(ids[:budget], tokenizer))
    end = _line_end(text, latest, latest // 2)
    while True:
        kept = tokenizer.encode(text[:end])
        if len(kept) <= budget:
            return FittedText(text[:end], kept, max(0, num_tokens - len(kept)))
        latest = max(0, end - max(1, end * (len(kept) - budget) // len(kept)))
        end = _line_end(text, latest, latest // 2)


def _stable_start(text: str, earliest: int) -> int:
    """The start of `keep_end` when what fits begins at `earliest`; keeps at least five eighths of that."""
    grid = 1 << max(0, (len(text) - earliest).bit_length() - 3)
    aligned = -(-earliest // grid) * grid
    return _line_start(text, aligned, aligned + grid // 2)


def _line_start(text: str, position: int, furthest: int) -> int:
    """The first line start in [position, furthest]; `position` itself where there is none."""
    if position >= len(text):
        return len(text)
    if position == 0 or text[position - 1] == "\n":
        return position
    found = text.find("\n", position, furthest)
    return found + 1 if found >= 0 else position


def _line_end(text: str, position: int, earliest: int) -> int:
    """Just behind the last line end in (earliest, position]; `position` itself where there is none."""
    found = text.rfind("\n", earliest, position)
    return found + 1 if found >= 0 else position


def _num_chars(ids: list[int], tokenizer: PromptTokenizer) -> int:
    """Characters a run of tokens stands for; a character cut in two does not count."""
    return len(b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "ignore"))


def _estimate(text: str) -> int:
    return -(-len(text) // _CHARS_PER_TOKEN)
