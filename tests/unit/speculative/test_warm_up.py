"""A new engine's first requests: a draft model that has shown what it can do may read their prompts."""

from __future__ import annotations

import pytest

from zenray.build import build_engine
from zenray.config_load import load_config
from zenray.engine.engine import Engine
from zenray.engine.request import Final, GenerateRequest, Limits


def engine_with(drafters: str) -> Engine:
    """The tiny model, drafting for itself."""
    overrides = [
        f"speculation.drafters={drafters}",
        "speculation.gamma=4",
        "draft.model=preset:tiny",
        "draft.weight_format=float32",
    ]
    return build_engine(load_config("tiny", None, overrides))


def test_the_warm_up_drafts_and_leaves_the_engine_idle_and_in_order() -> None:
    engine = engine_with("[draft_model]")
    (load,) = engine.load().drafters
    assert load.accepted_tokens == load.drafted_tokens > 0
    assert not engine.has_work
    engine.check_integrity()


def test_the_first_request_after_it_is_like_any_other() -> None:
    answers = []
    for engine in (engine_with("[draft_model]"), engine_with("[]")):
        engine.add(GenerateRequest("r", (1, 2, 3), limits=Limits(max_tokens=8, ignore_eos=True)))
        events = []
        while engine.has_work:
            events += [event for _, event in engine.step()]
        answers += [event.text for event in events if isinstance(event, Final)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("drafters", ["[]", "[suffix, recycling]"])
def test_drafters_that_read_nothing_need_none(drafters: str) -> None:
    assert engine_with(drafters).load().generated_tokens == 0
