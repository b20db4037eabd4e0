from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from zenray.engine.request import GenerateRequest
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import NUM_CLASSES, Draft, Round
from zenray.speculative.drafter import FREE, Ask
from zenray.speculative.recycling import MAX_CONTEXT, RecyclingDrafter, SuccessorTable

NO_LOGITS = torch.empty(0, 0)
TOKENS = st.lists(st.integers(0, 151_935), min_size=1, max_size=30)
FEW_TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=60)


def sequence_of(prompt: list[int]) -> Sequence:
    return Sequence(1, 0, GenerateRequest("r", tuple(prompt)), seed=0, arrival_s=0.0, arrival_number=0)


def generate(drafter: RecyclingDrafter, prompt: list[int], output: list[int], per_round: int = 1) -> Sequence:
    """A sequence whose output was committed `per_round` tokens at a time."""
    sequence = sequence_of(prompt)
    drafter.opened(sequence)
    for start in range(0, len(output), per_round):
        committed = output[start : start + per_round]
        for token_id in committed:
            sequence.append_token(token_id, 0.0)
        drafter.observe([Round(sequence, None, len(committed) - 1, len(committed), 0)], NO_LOGITS)
    return sequence


def draft(
    drafter: RecyclingDrafter,
    sequence: Sequence,
    max_tokens: int = 8,
    min_survival: float = 0.0,
    probability: Callable[[int], float] = lambda token_class: 1.0,
) -> Draft | None:
    (made,) = drafter.offer([Ask(sequence, max_tokens, min_survival, probability)])
    return made


def test_what_one_request_said_is_drafted_for_another() -> None:
    drafter = RecyclingDrafter()
    generate(drafter, [1, 2], [3, 4, 5, 6])
    other = sequence_of([9, 9, 2])
    other.append_token(3, 0.0)
    made = draft(drafter, other)
    assert made is not None
    assert (made.drafter, made.token_ids) == ("recycling", (4, 5, 6))


def test_a_longer_context_is_believed_before_a_shorter_one() -> None:
    drafter = RecyclingDrafter()
    generate(drafter, [1, 2, 3], [50])
    generate(drafter, [7, 2, 3], [60])
    generate(drafter, [8, 8, 3], [70])
    after = {context: draft(drafter, sequence_of(list(context)), 1) for context in [(1, 2, 3), (9, 2, 3), (9, 9, 3)]}
    assert [made.token_ids for made in after.values() if made] == [(50,), (60,), (70,)]
    # The class says which it was.
    assert len({made.classes for made in after.values() if made}) == 3


def test_a_successor_that_came_again_is_of_a_surer_class_until_another_comes() -> None:
    table = SuccessorTable()
    classes = []
    for _ in range(8):
        table.learn([1, 2, 3], 4)
        found = table.successor([1, 2, 3])
        assert found is not None
        assert found[0] == 4
        classes.append(found[1])
    assert classes == sorted(classes)
    assert len(set(classes)) == 5
    table.learn([1, 2, 3], 9)
    assert table.successor([1, 2, 3]) == (9, classes[0])


@given(FEW_TOKENS, FEW_TOKENS, st.integers(1, 5))
def test_how_many_tokens_a_round_committed_changes_nothing(prompt: list[int], output: list[int], step: int) -> None:
    singly, together = RecyclingDrafter(), RecyclingDrafter()
    one, other = generate(singly, prompt, output), generate(together, prompt, output, step)
    assert draft(singly, one) == draft(together, other)


@given(FEW_TOKENS, FEW_TOKENS)
def test_every_token_of_a_draft_came_after_the_one_before_it(prompt: list[int], output: list[int]) -> None:
    drafter = RecyclingDrafter()
    sequence = generate(drafter, prompt, output)
    made = draft(drafter, sequence)
    said = [*prompt, *output]
    pairs = set(zip(said[len(prompt) - 1 :], said[len(prompt) :], strict=False))
    if made is None:
        assert said[-1] not in {first for first, _ in pairs}
    else:
        assert set(zip([said[-1], *made.token_ids], made.token_ids, strict=False)) <= pairs
        assert all(0 <= token_class < NUM_CLASSES for token_class in made.classes)
        assert len(made.classes) == len(made.token_ids) <= 8


@given(st.lists(TOKENS, max_size=10))
def test_the_table_never_grows_and_the_newest_is_known(outputs: list[list[int]]) -> None:
    drafter = RecyclingDrafter()
    for output in outputs:
        generate(drafter, [0], output)
        found = drafter.table.successor([0, *output[:-1]])
        assert found is not None
        assert found[0] == output[-1]
    assert drafter.table.nbytes < 2_000_000


def test_a_draft_ends_where_it_would_hardly_be_accepted() -> None:
    drafter = RecyclingDrafter()
    sequence = generate(drafter, [1], [2, 3, 1, 2, 3, 1])
    made = draft(drafter, sequence, max_tokens=32, min_survival=0.1, probability=lambda token_class: 0.5)
    assert made is not None
    assert made.token_ids == (2, 3, 1)
    assert draft(drafter, sequence, min_survival=0.6, probability=lambda token_class: 0.5) is None


def test_it_is_free_and_knows_nothing_at_first() -> None:
    drafter = RecyclingDrafter()
    sequence = sequence_of(list(range(MAX_CONTEXT)))
    assert drafter.cost(sequence, 1) == FREE
    assert draft(drafter, sequence) is None
    drafter.closed(sequence)
    drafter.shutdown()
