"""A Hugging Face tokenizer.json as a `BpeTokenizer`: what is added, normalised or templated is taken away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zenray.errors import ModelFileError
from zenray.model.bpe import BpeTokenizer, bpe_definition
from zenray.model.config import ModelConfig
from zenray.model.sentencepiece import SentencePieceTokenizer, has_all_bytes, sentencepiece_definition
from zenray.model.tokenizer import discover_fim, end_tokens, unreachable_names


def tokenizer_from_hf(folder: Path, config: ModelConfig) -> BpeTokenizer:
    """Reads tokenizer.json, and the ends of text of generation_config.json and tokenizer_config.json.

    Raises:
        ModelFileError: no tokenizer.json, or not a BPE.
    """
    path = folder / "tokenizer.json"
    data = _read(path, required=True)
    settings = _read(folder / "tokenizer_config.json")
    model = data.get("model", {})
    byte_level, pre_tokenizer = _without_prefix_space(data.get("pre_tokenizer"))
    sentencepiece = bool(model.get("byte_fallback"))
    if model.get("type") != "BPE" or not (byte_level or sentencepiece):
        raise ModelFileError(f"{path}: a {model.get('type')} tokenizer; supported: byte-level and SentencePiece BPE")
    added: dict[str, int] = {token["content"]: token["id"] for token in data.get("added_tokens", ())}
    largest = max([*model["vocab"].values(), *added.values()], default=0)
    if largest >= config.vocab_size:
        raise ModelFileError(f"{path}: token id {largest}, but the embedding has {config.vocab_size} rows")
    # Added tokens of whitespace are text; all others steer the model and are kept out of the vocabulary.
    spaces = {} if sentencepiece else {text: token_id for text, token_id in added.items() if text.isspace()}
    steering = {text: model["vocab"][text] for text in unreachable_names(model["merges"]) if text in model["vocab"]}
    control = steering | {text: token_id for text, token_id in added.items() if text not in spaces}
    vocab = {text: i for text, i in model["vocab"].items() if text not in added and text not in control}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    kind: type[BpeTokenizer]
    if sentencepiece:
        if not has_all_bytes(vocab):
            raise ModelFileError(f"{path}: the vocabulary lacks some of the byte tokens <0x00> to <0xFF>")
        kind, definition = SentencePieceTokenizer, sentencepiece_definition(vocab, merges)
    else:
        kind = BpeTokenizer
        definition = bpe_definition(
            vocab,
            merges,
            pre_tokenizer,
            ignore_merges=bool(model.get("ignore_merges", False)),
            whitespace_tokens=spaces,
        )
    fim = discover_fim(control)
    bos = control.get(_text(settings.get("bos_token")), config.bos_token_id)
    return kind(
        json.dumps(definition, ensure_ascii=False),
        config.vocab_size,
        {token_id: text for text, token_id in control.items()},
        eos_token_ids=end_tokens(control, _stated_ends(folder, settings, control, config), fim),
        bos_token_id=bos,
        add_bos=bool(settings.get("add_bos_token", _template_starts_with(data.get("post_processor"), bos))),
        fim=fim,
    )


def _read(path: Path, required: bool = False) -> dict[str, Any]:
    if not path.exists() and not required:
        return {}
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(f"{path} is missing") from None
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}") from None
    return data


def _text(token: Any) -> str:
    """A token in tokenizer_config.json is its text or a mapping with `content`."""
    return str(token.get("content", "")) if isinstance(token, Mapping) else str(token or "")


def _stated_ends(
    folder: Path, settings: Mapping[str, Any], control: Mapping[str, int], config: ModelConfig
) -> set[int]:
    eos = _read(folder / "generation_config.json").get("eos_token_id")
    ends = set(eos) if isinstance(eos, list) else set() if eos is None else {eos}
    ends.update(config.eos_token_ids)
    text = _text(settings.get("eos_token"))
    return ends | ({control[text]} if text in control else set())


def _without_prefix_space(pre_tokenizer: Any) -> tuple[bool, dict[str, Any]]:
    """(has a ByteLevel step, the pre-tokenizer with no step that adds a space the text lacks)."""
    if not isinstance(pre_tokenizer, Mapping):
        return False, {}
    if pre_tokenizer.get("type") == "Sequence":
        steps = [_without_prefix_space(step) for step in pre_tokenizer.get("pretokenizers", ())]
        return any(found for found, _ in steps), {**pre_tokenizer, "pretokenizers": [step for _, step in steps]}
    if pre_tokenizer.get("type") == "ByteLevel":
        return True, {**pre_tokenizer, "add_prefix_space": False}
    return False, dict(pre_tokenizer)


def _template_starts_with(post_processor: Any, token_id: int | None) -> bool:
    """Whether a TemplateProcessing step puts `token_id` before a single text."""
    if not isinstance(post_processor, Mapping) or token_id is None:
        return False
    if post_processor.get("type") == "Sequence":
        return any(_template_starts_with(step, token_id) for step in post_processor.get("processors", ()))
    first: Mapping[str, Any] = next(iter(post_processor.get("single", ())), {})
    name = first.get("SpecialToken", {}).get("id")
    return token_id in post_processor.get("special_tokens", {}).get(name, {}).get("ids", ())
