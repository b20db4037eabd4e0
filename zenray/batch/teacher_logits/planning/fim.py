"""Fill in the middle: a piece of text with its middle moved to the end.

Bavarian et al., "Efficient Training of Language Models to Fill in the Middle" (arXiv 2207.14255). Decided as there:

- The middle is what lies between two places of the text, drawn uniformly and independently among all of them, its ends
  included, by characters and not by tokens: a cursor stands anywhere, so a student has to meet prefixes that end inside
  a word. Any of the parts may be empty.
- PSM is `<prefix>P<suffix>S<middle>M<end>`; SPM is the paper's second variant, `<prefix><suffix>S<middle>PM<end>`, in
  which the model reads on from the prefix into the middle without a control token between them. StarCoder was trained
  so (`permute` in BigCode's fork of Megatron-LM), and Code Llama too (arXiv 2308.12950).
- Each part is encoded by itself, prefix and middle of SPM too: who serves the model has only the prefix's
  tokens. Code Llama encodes these two together instead and needs token healing for it.
- The end is the token by which the model ends a text, as in Qwen2.5-Coder's file-level format (arXiv 2409.12186).

Pieces are transformed, not documents (context-level FIM): prefix, suffix and middle of one example are always together
in one segment. The paper keeps the loss on all three, and here every token but the first gets a record, control tokens
included. Where a part ends is drawn at random, so a trainer may well leave out the ones that a request gives (prefix,
suffix, middle), which it knows by their ids; the end of the middle is what the student must learn.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from zenray.batch.teacher_logits.model import Mode
from zenray.batch.teacher_logits.planning.draws import Draws
from zenray.errors import ConfigError
from zenray.model.tokenizer import FimTokens, Tokenizer


@dataclass(frozen=True, slots=True)
class Split:
    """A text in three, in the text's order."""

    prefix: str
    middle: str
    suffix: str


def required_fim(tokenizer: Tokenizer) -> FimTokens:
    """Raises ConfigError where the model has no control tokens for infilling."""
    if tokenizer.fim is None:
        raise ConfigError(
            "fim_rate is above 0, but the model's tokenizer has no fill-in-the-middle control tokens; "
            "set fim_rate to 0 to plan plain text"
        )
    return tokenizer.fim


def split_text(text: str, draws: Draws, piece: int) -> Split:
    """Two places among the len(text) + 1 there are."""
    first, second = (draws.below(len(text) + 1, f"fim {name} place", piece) for name in ("one", "other"))
    begin, end = sorted((first, second))
    return Split(text[:begin], text[begin:end], text[end:])


def arrange(split: Split, mode: Mode, tokenizer: Tokenizer, end_of_text: int) -> array[int]:
    """The tokens of PSM or SPM, end included, BOS not."""
    fim = required_fim(tokenizer)
    prefix, middle, suffix = map(tokenizer.encode, (split.prefix, split.middle, split.suffix))
    if mode is Mode.PSM:
        given = [fim.prefix, *prefix, fim.suffix, *suffix, fim.middle]
    else:
        given = [fim.prefix, fim.suffix, *suffix, fim.middle, *prefix]
    return array("I", [*given, *middle, end_of_text])
