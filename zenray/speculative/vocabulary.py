"""Whether two models mean the same by a token id: a draft is only ids, so its vocabulary is its verifier's."""

from __future__ import annotations

import hashlib

from zenray.errors import ConfigError
from zenray.model.tokenizer import Tokenizer


def token_meanings(tokenizer: Tokenizer) -> list[bytes]:
    """What each id stands for, b"" for unused ones. Ends with the last used id: embeddings are padded with rows
    that no tokenizer names, differently from size to size of one family."""
    control = tokenizer.control_token_ids
    meanings = [
        b"\xff" + str(tokenizer.control_token_text(token_id)).encode()  # a byte that no UTF-8 text holds
        if token_id in control
        else tokenizer.token_bytes(token_id)
        for token_id in range(tokenizer.vocab_size)
    ]
    while meanings and not meanings[-1]:
        meanings.pop()
    return meanings


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of all token meanings; equal for models that can draft for each other."""
    digest = hashlib.sha256()
    for meaning in token_meanings(tokenizer):
        digest.update(len(meaning).to_bytes(4, "little") + meaning)
    return digest.hexdigest()


def check_same_vocabulary(draft: Tokenizer, verifier: Tokenizer, draft_name: str, verifier_name: str) -> None:
    """Raises `ConfigError` unless every id means the same to both."""
    theirs, ours = token_meanings(draft), token_meanings(verifier)
    if theirs == ours:
        return
    num_common = min(len(theirs), len(ours))
    first = next((i for i in range(num_common) if theirs[i] != ours[i]), num_common)
    shown = [repr(side[first]) if first < len(side) else "unused" for side in (theirs, ours)]
    raise ConfigError(
        f"draft.model {draft_name!r} has another vocabulary than model.name {verifier_name!r}: token {first} is "
        f"{shown[0]} to the draft and {shown[1]} to the verifier. Choose a draft model of the verifier's family, "
        "or take draft_model and draft_pool out of speculation.drafters"
    )
