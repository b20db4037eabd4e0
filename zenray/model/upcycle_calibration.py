"""The text on which neurons are weighed and routers balanced."""

from __future__ import annotations

from pathlib import Path

from zenray.model.tokenizer import Tokenizer

MAX_TOKENS = 2048
_WINDOW = 512


def calibration_text() -> str:
    """Code in a dozen languages, written for this purpose."""
    return Path(__file__).with_name("data").joinpath("calibration.txt").read_text(encoding="utf-8")


def calibration_windows(tokenizer: Tokenizer, max_length: int) -> list[list[int]]:
    """The calibration text in windows that the model can read, at most `MAX_TOKENS` tokens in all."""
    start = [tokenizer.bos_token_id] if tokenizer.add_bos and tokenizer.bos_token_id is not None else []
    token_ids = tokenizer.encode(calibration_text())[:MAX_TOKENS]
    step = max(min(_WINDOW, max_length) - len(start), 1)
    return [start + token_ids[at : at + step] for at in range(0, len(token_ids), step)]
