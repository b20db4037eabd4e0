"""The layout of a conversation in control tokens. They enter as ids: what a turn says is text, whatever it spells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zenray.model.tokenizer import Tokenizer

_BEGIN, _END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one role says."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ChatLayout:
    """ChatML: `<|im_start|>ROLE`, a line end, what it says, `<|im_end|>`, a line end."""

    begin: int
    end: int

    @classmethod
    def discover(cls, tokenizer: Tokenizer) -> ChatLayout | None:
        """The layout of a model whose vocabulary has its control tokens; None for any other."""
        ids = {tokenizer.control_token_text(token_id): token_id for token_id in tokenizer.control_token_ids}
        return cls(ids[_BEGIN], ids[_END]) if _BEGIN in ids and _END in ids else None

    def prompt(self, tokenizer: Tokenizer, turns: Sequence[Turn], answer: str) -> list[int]:
        """Ids of the turns and of an assistant's that has begun with `answer`."""
        ids: list[int] = []
        for turn in turns:
            ids += [self.begin, *tokenizer.encode(f"{turn.role}\n{turn.text}"), self.end, *tokenizer.encode("\n")]
        return [*ids, self.begin, *tokenizer.encode("assistant\n"), *tokenizer.encode(answer)]
