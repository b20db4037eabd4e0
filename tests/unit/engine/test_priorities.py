"""Batch work fills what interactive requests leave, and takes nothing from them: no step, no place, no prompt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.engine.blocks import BATCH_CACHE_SHARE, ROOT_HASH, BlockPool, chain_hash
from zenray.engine.engine import Engine
from zenray.engine.request import Delta, GenerateRequest, Limits, Priority, Sampling, Started
from zenray.engine.scheduler import Scheduled
from zenray.errors import Overloaded

MakeEngine = Callable[..., Engine]


def request(priority: Priority, prompt: tuple[int, ...], max_tokens: int = 30) -> GenerateRequest:
    limits = Limits(max_tokens=max_tokens, ignore_eos=True)
    return GenerateRequest("r", prompt, Sampling(logprobs=0), limits, priority)  # logprobs: a delta for every token


def busy_with_batch(make_engine: MakeEngine, count: int, **fields: int) -> tuple[Engine, list[int]]:
    """An engine that decodes `count` batch sequences."""
    engine = make_engine(max_running_sequences=8, **fields)
    handles = [engine.add(request(Priority.BATCH, (65 + i,) * 6)) for i in range(count)]
    while len(engine.scheduler.draftable) < count:
        engine.step()
    return engine, handles


def by_priority(plan: list[Scheduled], priority: Priority) -> int:
    return sum(s.num_tokens + s.num_draft for s in plan if s.sequence.priority is priority)


@pytest.mark.parametrize("allowed", [0, 2, 16])
def test_an_interactive_prompt_is_read_as_if_it_were_alone(make_engine: MakeEngine, allowed: int) -> None:
    engine, _ = busy_with_batch(make_engine, 5, mixed_step_tokens=8, batch_tokens_beside_interactive=allowed)
    engine.add(request(Priority.INTERACTIVE, (70,) * 100))
    plans = []
    plan = engine.scheduler.plan
    engine.scheduler.plan = lambda: plans.append(plan()) or plans[-1]  # type: ignore[func-returns-value]
    events = engine.step()
    assert any(isinstance(event, Started) for _, event in events), "one step read all of it"
    assert by_priority(plans[0], Priority.INTERACTIVE) == 100
    assert by_priority(plans[0], Priority.BATCH) == min(5, allowed)


def test_a_batch_prompt_does_not_stall_an_interactive_stream(make_engine: MakeEngine) -> None:
    engine = make_engine(max_step_tokens=64, batch_tokens_beside_interactive=4)
    stream = engine.add(request(Priority.INTERACTIVE, (66,) * 5))
    engine.step()
    batch = engine.add(request(Priority.BATCH, (67,) * 60))
    started_in = []
    for num_steps in range(1, 20):
        events = engine.step()
        assert any(handle == stream and isinstance(event, Delta) for handle, event in events)
        started_in += [num_steps for handle, event in events if handle == batch and isinstance(event, Started)]
    assert started_in == [15], "4 of 60 tokens in each step"


def test_alone_batch_work_takes_steps_that_a_newcomer_can_wait_for(make_engine: MakeEngine) -> None:
    engine = make_engine(max_step_tokens=64, batch_step_tokens=20)
    for start in range(3):
        engine.add(request(Priority.BATCH, (80 + start,) * 50))
    while engine.scheduler.waiting or not engine.scheduler.running or len(engine.scheduler.draftable) < 3:
        plan = engine.scheduler.plan()
        assert by_priority(plan, Priority.BATCH) <= 20
        engine.step()


def test_a_full_batch_queue_refuses_batch_requests_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(max_running_sequences=2, max_waiting_sequences=3)
    for start in range(5):
        engine.add(request(Priority.BATCH, (65 + start,) * 4))
    with pytest.raises(Overloaded, match="5 batch sequences"):
        engine.add(request(Priority.BATCH, (70,)))
    for start in range(5):
        engine.add(request(Priority.INTERACTIVE, (75 + start,) * 4, max_tokens=1))
    with pytest.raises(Overloaded, match="5 interactive sequences"):
        engine.add(request(Priority.INTERACTIVE, (70,)))
    while engine.has_work:
        engine.step()
    engine.check_integrity()


@given(
    num_editors=st.integers(1, 11),
    texts=st.lists(st.integers(1, 16), min_size=10, max_size=40),
)
def test_a_night_of_batch_work_leaves_an_editors_prompt_in_the_cache(num_editors: int, texts: list[int]) -> None:
    pool = BlockPool(num_blocks=40, block_size=1)

    def read(tokens: list[int], priority: Priority) -> None:
        hashes: list[bytes] = []
        for token in tokens:
            hashes.append(chain_hash(hashes[-1] if hashes else ROOT_HASH, [token]))
        table = pool.acquire_cached(hashes, priority)
        table += pool.allocate(len(tokens) - len(table), priority)
        for block, block_hash in zip(table, hashes, strict=True):
            pool.publish(block, block_hash)
        pool.release(table)
        pool.check_integrity([])

    prompt = list(range(num_editors))
    read(prompt, Priority.INTERACTIVE)
    for number, length in enumerate(texts, start=1):
        read([number * 1000 + place for place in range(length)], Priority.BATCH)
    hashes: list[bytes] = []
    for token in prompt:
        hashes.append(chain_hash(hashes[-1] if hashes else ROOT_HASH, [token]))
    # What a running text needs plus what batch may keep is at most 26 of 40 blocks here.
    assert max(texts) + BATCH_CACHE_SHARE * 40 + 1 + num_editors <= 40
    assert pool.count_cached(hashes) == num_editors
