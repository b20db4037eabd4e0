"""A bound that moves, in any order of arrivals, ends and cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.client.gate import Gate

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(1, 5)),
        st.tuples(st.just("end"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("limit"), st.integers(1, 8)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_the_bound_holds_and_nobody_waits_in_vain(actions: Sequence[tuple[str, int]]) -> None:
    asyncio.run(_run(actions))


async def _run(actions: Sequence[tuple[str, int]]) -> None:
    gate = Gate(4)
    inside: dict[int, tuple[int, asyncio.Event]] = {}
    tasks: dict[int, tuple[int, asyncio.Task[None]]] = {}

    async def visit(number: int, num_units: int) -> None:
        async with gate.places(num_units):
            done = asyncio.Event()
            inside[number] = num_units, done
            try:
                await done.wait()
            finally:
                del inside[number]

    def check() -> None:
        assert gate.in_flight == sum(num_units for num_units, _ in inside.values())
        if tasks.keys() - inside.keys():
            assert gate.in_flight >= gate.limit

    for number, (action, argument) in enumerate(actions):
        was_inside = set(inside)
        if action == "arrive":
            tasks[number] = argument, asyncio.create_task(visit(number, argument))
        elif action == "limit":
            gate.limit = argument
        elif action == "end" and inside:
            inside[sorted(inside)[argument % len(inside)]][1].set()
        elif action == "cancel" and tasks:
            tasks[sorted(tasks)[argument % len(tasks)]][1].cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        tasks = {each: pair for each, pair in tasks.items() if not pair[1].done()}
        check()
        if came := set(inside) - was_inside:
            assert gate.in_flight - inside[max(came)][0] < gate.limit  # The last to come in.
    for _, task in tasks.values():
        task.cancel()
    await asyncio.gather(*(task for _, task in tasks.values()), return_exceptions=True)
    assert gate.is_idle and gate.in_flight == 0
