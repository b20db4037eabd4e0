"""Text to token ids and back, with two promises.

User text never becomes a control token: `<|fim_middle|>` in a document encodes as the characters it is
made of. And `decode(encode(text)) == text` for every text without lone surrogates, so nothing is
normalised away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zenray.errors import ConfigError, InvalidRequest


@dataclass(frozen=True, slots=True)
class FimTokens:
    """Ids of the fill-in-the-middle sentinels; the optional ones are None where a model lacks them."""

    prefix: int
    suffix: int
    middle: int
    pad: int | None = None
    repo_name: int | None = None
    file_sep: int | None = None


# Spellings by family: Qwen and DeepSeek-style with bars, StarCoder/SmolLM, CodeLlama, DeepSeek-Coder, Codestral,
# CodeGemma (as Qwen), Granite (as StarCoder), zen4 toy (as Qwen).
_FIM_NAMES: dict[str, tuple[str, ...]] = {
    "prefix": ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "▁<PRE>", "<PRE>", "<｜fim▁begin｜>", "[PREFIX]"),
    "suffix": ("<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>", "▁<SUF>", "<SUF>", "<｜fim▁hole｜>", "[SUFFIX]"),
    "middle": ("<|fim_middle|>", "<fim_middle>", "<fim-middle>", "▁<MID>", "<MID>", "<｜fim▁end｜>", "[MIDDLE]"),
    "pad": ("<|fim_pad|>", "<fim_pad>", "<fim-pad>"),
    "repo_name": ("<|repo_name|>", "<repo_name>", "<reponame>"),
    "file_sep": ("<|file_sep|>", "<file_sep>"),
}


def discover_fim(control_ids: Mapping[str, int], known: Mapping[str, int] | None = None) -> FimTokens | None:
    """FIM sentinels among the control tokens: ids a file states (`known`, by field), else by name.

    None unless prefix, suffix and middle are all there.
    """
    found = dict(known or {})
    for field, names in _FIM_NAMES.items():
        for name in names:
            if name in control_ids:
                found.setdefault(field, control_ids[name])
    if not {"prefix", "suffix", "middle"} <= found.keys():
        return None
    return FimTokens(**found)


# Control tokens by which models of any family end a turn or a text.
_END_NAMES = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<EOT>",
    "▁<EOT>",
    "</s>",
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
)


def unreachable_names(merges: Iterable[str | Sequence[str]]) -> frozenset[str]:
    """Names of control tokens that no merge spells. In a vocabulary they steer the model whatever their
    declared type; one that a merge spells, as `</s>` may be in one trained on HTML, is text."""
    names = frozenset(_END_NAMES) | {name for names in _FIM_NAMES.values() for name in names}
    spelled = {merge.replace(" ", "") if isinstance(merge, str) else "".join(merge) for merge in merges}
    return names - spelled


def end_tokens(control_ids: Mapping[str, int], stated: Iterable[int], fim: FimTokens | None) -> frozenset[int]:
    """Ids after which nothing of a completion follows: those a file states, those known by name, and the
    padding, repository and file separators of FIM (a model that starts the next file has ended this one)."""
    ends = set(stated) | {control_ids[name] for name in _END_NAMES if name in control_ids}
    if fim is not None:
        ends |= {token_id for token_id in (fim.pad, fim.repo_name, fim.file_sep) if token_id is not None}
    return frozenset(ends)


class Tokenizer(ABC):
    """What every model's tokenizer answers. Ids of the model's whole vocabulary are valid everywhere."""

    def __init__(
        self,
        vocab_size: int,
        control_tokens: Mapping[int, str],
        eos_token_ids: Iterable[int],
        bos_token_id: int | None = None,
        add_bos: bool = False,
        fim: FimTokens | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.eos_token_ids = frozenset(eos_token_ids)
        self.bos_token_id, self.add_bos = bos_token_id, add_bos
        self.fim = fim
        self._control_tokens = dict(control_tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Adds nothing (no BOS) and never yields a control token.

        Raises:
            InvalidRequest: the text holds a lone surrogate, which no encoding can carry.
        """
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"a lone surrogate at {error.start}"
            raise InvalidRequest.of("text", found, "Unicode text without lone surrogates") from None
        return self._encode(text, data)

    @abstractmethod
    def _encode(self, text: str, data: bytes) -> list[int]: ...

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes the token stands for; a token may hold part of a character. Control tokens: b""."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the tokens; bytes that are no UTF-8 become U+FFFD, control tokens nothing."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", errors="replace")

    def control_token_text(self, token_id: int) -> str | None:
        """How a control token is spelled, for people to read; None for any other token."""
        return self._control_tokens.get(token_id)

    @property
    def control_token_ids(self) -> frozenset[int]:
        """Every id that `encode` can never yield because it steers the model."""
        return frozenset(self._control_tokens)


class ByteTokenizer(Tokenizer):
    """One token per byte, then control tokens: the vocabulary of presets, which have no public one.

    Ids beyond the control tokens, which big presets have, decode to a word each so that random models
    stream visible text; `encode` never yields them.
    """

    CONTROL_TOKENS = (
        "<|endoftext|>",
        "<|im_end|>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|repo_name|>",
        "<|file_sep|>",
    )

    def __init__(self, vocab_size: int = 264) -> None:
        if vocab_size < 256 + len(self.CONTROL_TOKENS):
            smallest = 256 + len(self.CONTROL_TOKENS)
            raise ConfigError(f"vocab_size is {vocab_size}; the byte tokenizer needs at least {smallest}")
        control = {256 + index: text for index, text in enumerate(self.CONTROL_TOKENS)}
        fim = discover_fim({text: token_id for token_id, text in control.items()})
        super().__init__(vocab_size, control, eos_token_ids=(256, 257), fim=fim)

    def _encode(self, text: str, data: bytes) -> list[int]:
        return list(data)

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < 256:
            return bytes((token_id,))
        return b"" if token_id in self._control_tokens else b" t%d" % token_id
