"""A short completion before the first request, so that a draft model starts with a record instead of a guess."""

from __future__ import annotations

import logging

from zenray.engine.engine import Engine
from zenray.engine.request import GenerateRequest, Limits

_logger = logging.getLogger(__name__)

TEXT = '''def binary_search(items, target):
    """Return the index of target in the sorted list items, or -1 if it is not there."""
'''
NUM_TOKENS = 64


def warm_up(engine: Engine) -> None:
    """Completes a few lines of code that every code model knows.

    Reading a prompt is an investment of the draft model's, and the allowance does not let an unknown drafter make a
    large one: a new engine would leave its draft model idle for its first requests. What the drafter saves here, on
    a prompt that is nearly free to read, vouches for it. One that is useless here earns nothing.
    """
    prompt = tuple(engine.model.tokenizer.encode(TEXT))
    num_tokens = min(NUM_TOKENS, engine.max_sequence_tokens - len(prompt))
    if num_tokens <= 0:
        return
    engine.add(GenerateRequest("warm-up", prompt, limits=Limits(max_tokens=num_tokens, ignore_eos=True)))
    while engine.has_work:
        engine.step()
    for load in engine.load().drafters:
        _logger.info("warm-up: %d of %d tokens of %s accepted", load.accepted_tokens, load.drafted_tokens, load.drafter)
