"""Sums keep every count and one entry per drafter, whatever the order they come in."""

from __future__ import annotations

from dataclasses import asdict, fields

from hypothesis import given
from hypothesis import strategies as st

from zenray.api.totals import total_load, total_usage
from zenray.engine.request import DrafterLoad, DrafterUsage, EngineLoad, Usage

count = st.integers(0, 10**6)
names = st.sampled_from(("draft_model", "draft_pool", "suffix", "recycling"))
usages = st.builds(
    Usage,
    prompt_tokens=st.just(7),
    completion_tokens=count,
    cached_tokens=st.just(3),
    rounds=count,
    drafters=st.lists(st.builds(DrafterUsage, names, count, count, count), unique_by=lambda d: d.drafter).map(tuple),
)
milliseconds = st.integers(0, 10**6).map(float)  # Whole ones add up exactly in any order.
drafter_loads = st.builds(DrafterLoad, names, count, count, count, count, milliseconds, milliseconds, count)
loads = st.builds(EngineLoad, *[count] * 11, drafters=st.lists(drafter_loads, unique_by=lambda d: d.drafter).map(tuple))


@given(st.lists(usages, min_size=1, max_size=4))
def test_choices_share_their_prompt_and_add_up_otherwise(choices: list[Usage]) -> None:
    total = total_usage(choices)
    assert (total.prompt_tokens, total.cached_tokens) == (7, 3)
    assert total.completion_tokens == sum(usage.completion_tokens for usage in choices)
    assert total.rounds == sum(usage.rounds for usage in choices)
    entries = [entry for usage in choices for entry in usage.drafters]
    assert len(total.drafters) == len({entry.drafter for entry in entries})
    for merged in total.drafters:
        own = [entry for entry in entries if entry.drafter == merged.drafter]
        for name in ("rounds", "drafted_tokens", "accepted_tokens"):
            assert getattr(merged, name) == sum(getattr(entry, name) for entry in own)


@given(st.lists(loads, max_size=4))
def test_the_load_of_a_service_is_that_of_its_replicas(replicas: list[EngineLoad]) -> None:
    total = total_load(replicas)
    for field in fields(EngineLoad):
        if field.name != "drafters":
            assert getattr(total, field.name) == sum(getattr(load, field.name) for load in replicas)
    entries = [asdict(entry) for load in replicas for entry in load.drafters]
    assert len(total.drafters) == len({entry["drafter"] for entry in entries})
    for merged in map(asdict, total.drafters):
        own = [entry for entry in entries if entry["drafter"] == merged["drafter"]]
        for name, value in merged.items():
            if name == "queue_age_ms":  # The slowest replica's says when answers come late.
                assert value == max(entry[name] for entry in own)
            elif name != "drafter":
                assert value == sum(entry[name] for entry in own)


def test_nothing_adds_up_to_nothing() -> None:
    assert total_usage([]) == Usage(0, 0, 0)
    assert total_load([]) == EngineLoad()
