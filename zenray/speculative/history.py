"""Texts to copy from: a sequence's own, in reading order, and those of its session's recent requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Ordered
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from zenray.model.tokenizer import FimTokens

TokenArray = npt.NDArray[np.int32]

SEPARATOR = -1
"""Stands before and between texts; no token equals it, so no copy runs across."""

_NOTHING: TokenArray = np.full(1, SEPARATOR, dtype=np.int32)


def reading_order(prompt_ids: Ordered[int], fim: FimTokens | None) -> list[int]:
    """The prompt as its reader would continue it, without the control tokens of an infill.

    An infill prompt ends `prefix <|fim_suffix|> suffix <|fim_middle|>`, yet what is generated continues the
    prefix. So the suffix becomes a text of its own, and the prefix comes last.
    """
    if fim is None or not prompt_ids or prompt_ids[-1] != fim.middle or fim.suffix not in prompt_ids:
        return list(prompt_ids)
    cut = max(index for index, token_id in enumerate(prompt_ids) if token_id == fim.suffix)
    return [*prompt_ids[cut + 1 : -1], SEPARATOR, *prompt_ids[:cut]]


class TokenText:
    """A growing text. Starts with a separator, so that no match reaches past its beginning."""

    def __init__(self, token_ids: Ordered[int]) -> None:
        self._buffer_N = np.full(max(1024, 2 * len(token_ids)), SEPARATOR, dtype=np.int32)
        self._length = 1
        self.extend(token_ids)

    def __len__(self) -> int:
        return self._length

    def extend(self, token_ids: Ordered[int]) -> None:
        length = self._length + len(token_ids)
        if length > len(self._buffer_N):
            grown_N = np.full(2 * length, SEPARATOR, dtype=np.int32)
            grown_N[: self._length] = self.ids_N
            self._buffer_N = grown_N
        self._buffer_N[self._length : length] = token_ids
        self._length = length

    @property
    def ids_N(self) -> TokenArray:
        """A view, separator included; later tokens do not change it."""
        return self._buffer_N[: self._length]


class SessionHistory:
    """The newest `session_tokens` tokens, separators included, of each of the `max_sessions` sessions used last.

    The arrays it hands out never change: whoever holds one copies from what was known then.
    """

    def __init__(self, session_tokens: int, max_sessions: int) -> None:
        self._session_tokens = session_tokens
        self._max_sessions = max_sessions
        self._texts: OrderedDict[str, TokenArray] = OrderedDict()

    def recall(self, session_id: str) -> TokenArray:
        """What the session said, oldest first; only a separator for a session unknown or without a name."""
        if session_id not in self._texts:
            return _NOTHING
        self._texts.move_to_end(session_id)
        return self._texts[session_id]

    def remember(self, session_id: str, text_N: TokenArray) -> None:
        """Adds a text that begins with a separator. Forgets the oldest tokens, and the session used longest ago."""
        if not session_id or not self._session_tokens:
            return
        known_N = self._texts.pop(session_id, _NOTHING)
        kept_N = np.concatenate((known_N, text_N[1:], _NOTHING))[-self._session_tokens :]
        kept_N[0] = SEPARATOR
        self._texts[session_id] = kept_N
        while len(self._texts) > self._max_sessions:
            self._texts.popitem(last=False)

    @property
    def num_tokens(self) -> int:
        """Tokens and separators held."""
        return sum(map(len, self._texts.values()))

    def clear(self) -> None:
        self._texts.clear()
