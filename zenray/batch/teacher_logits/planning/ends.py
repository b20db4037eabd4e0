"""The token by which a text ends, among all at which a model may be stopped."""

from __future__ import annotations

from zenray.errors import ConfigError
from zenray.model.tokenizer import Tokenizer

# By family: Qwen, StarCoder, SmolLM; Llama 3, Granite; DeepSeek; Llama 2, Mistral; Gemma. Ends of a turn in a chat
# (`<|im_end|>`, `<|eot_id|>`) never end a file.
_TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>")
_INFILL_ENDS = ("▁<EOT>", "<EOT>")  # Code Llama ends an infilled middle by a token of its own.


def end_of_text(tokenizer: Tokenizer) -> int:
    """What a document ends with in training: `<|endoftext|>` for Qwen. Raises ConfigError where the model has none."""
    ends = _named_ends(tokenizer)
    if not tokenizer.eos_token_ids:
        raise ConfigError("the model's tokenizer has no end-of-text token; documents cannot be ended")
    return next((ends[name] for name in _TEXT_ENDS if name in ends), min(tokenizer.eos_token_ids))


def end_of_infill(tokenizer: Tokenizer) -> int:
    """What an infilled middle ends with: for most models what a document ends with. Raises ConfigError as there."""
    ends = _named_ends(tokenizer)
    return next((ends[name] for name in _INFILL_ENDS if name in ends), end_of_text(tokenizer))


def _named_ends(tokenizer: Tokenizer) -> dict[str | None, int]:
    return {tokenizer.control_token_text(each): each for each in sorted(tokenizer.eos_token_ids)}
