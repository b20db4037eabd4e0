"""A worker drafts what its verifier would choose, ahead of it, on several branches, and forgets what is stale."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.engine.request import Sampling
from zenray.model.load import LoadedModel, load_preset
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.draft_worker import DraftWorker
from zenray.speculative.drafting import MAX_BRANCHES, MAX_ROWS, ROW_COST, Drafted, Opening, Work, choose_work
from zenray.speculative.outcome_tree import OutcomeTree

PROMPT = tuple(range(1, 30))
WAIT_S = 30.0


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_preset("tiny", {"num_layers": 1}, seed=3, dtype=torch.float64)


def make_worker(loaded: LoadedModel, num_blocks: int = 128) -> DraftWorker:
    return DraftWorker(DraftModel(loaded, num_blocks, block_size=4), deliver=lambda found: None)


def opening(token_ids: tuple[int, ...] = PROMPT, max_draft_tokens: int = 8, temperature: float = 0.0) -> Opening:
    return Opening(token_ids, len(token_ids), Sampling(temperature=temperature), 7, max_draft_tokens)


def choices(loaded: LoadedModel, opened: Opening, count: int) -> tuple[int, ...]:
    """What a verifier with this very model chooses."""
    model = DraftModel(loaded, 128, block_size=4)
    chain = model.open(opened.token_ids, opened.sampling, opened.seed, opened.num_prompt)
    for _ in range(count):
        model.extend([chain])
    return tuple(chain.token_ids[len(opened.token_ids) :])


def drain(worker: DraftWorker) -> list[Drafted]:
    """Everything it finds until it has nothing more to do."""
    found: list[Drafted] = []
    for _ in range(1000):
        step = worker.step()
        if step is None:
            return found
        found += step
    raise AssertionError("the worker never rests")


def grow(tree: OutcomeTree, found: list[Drafted], key: object = "a") -> OutcomeTree:
    for one in found:
        if one.key == key:
            tree.insert(one.base_length, one.token_ids, one.classes, 0.0)
    return tree


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_drafts_the_choices_of_the_verifier_to_the_end_and_rests(loaded: LoadedModel, temperature: float) -> None:
    worker, opened = make_worker(loaded), opening(temperature=temperature)
    worker.open("a", opened)
    found = drain(worker)
    expected = choices(loaded, opened, 8)
    longest = max((one for one in found if one.token_ids == expected[: len(one.token_ids)]), key=lambda o: o.token_ids)
    assert longest.base_length == len(PROMPT)
    assert 0 < len(longest.token_ids) <= 8
    assert worker.step() is None


@pytest.mark.parametrize("sampling", [Sampling(temperature=1.0, top_k=1), Sampling(temperature=0.8, top_p=0.01)])
def test_a_sampling_that_leaves_one_token_has_no_second_choice(loaded: LoadedModel, sampling: Sampling) -> None:
    worker, opened = make_worker(loaded), replace(opening(), sampling=sampling)
    worker.open("a", opened)
    best = grow(OutcomeTree(PROMPT, 1000), drain(worker)).best(8).token_ids
    assert best == choices(loaded, opened, len(best)) != ()
    assert len(worker._draftings["a"].branches) == 1
    worker.commit("a", [255])
    assert drain(worker)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 2)), max_size=5))
def test_whatever_is_committed_the_next_draft_is_what_the_verifier_chooses_behind_it(
    loaded: LoadedModel, rounds: list[tuple[int, int, int]]
) -> None:
    """Each round commits some tokens, the last of them perhaps another than drafted, at any moment of drafting."""
    worker = make_worker(loaded)
    committed = list(PROMPT)
    worker.open("a", opening(max_draft_tokens=4))
    for count, num_steps, surprise in rounds:
        for _ in range(num_steps):
            worker.step()
        fresh = list(choices(loaded, opening(tuple(committed)), count))
        fresh[-1] = (fresh[-1] + surprise) % 256
        committed += fresh
        worker.commit("a", fresh)
    tree = grow(OutcomeTree(committed, 1000), drain(worker))
    best = tree.best(8).token_ids
    assert best
    first_choice = choices(loaded, opening(tuple(committed)), 1)
    assert best[:1] == first_choice
    worker.close("a")
    assert worker.step() is None
    worker._model.check_integrity()


def test_when_the_verifier_takes_the_second_choice_a_draft_behind_it_waits(loaded: LoadedModel) -> None:
    worker = make_worker(loaded)
    worker.open("a", opening())
    tree = grow(OutcomeTree(PROMPT, 1000), drain(worker))
    model = DraftModel(loaded, 128, block_size=4)
    (guess,) = model.extend([model.open(PROMPT)], num_runners_up=1)
    assert guess is not None
    assert tree.commit([guess.runners_up[0]])
    assert tree.best(8).token_ids[:1] == choices(loaded, opening((*PROMPT, guess.runners_up[0])), 1)


def test_stale_branches_are_given_up_and_their_number_is_bounded(loaded: LoadedModel) -> None:
    worker = make_worker(loaded)
    worker.open("a", opening())
    drain(worker)
    assert 1 < len(worker._draftings["a"].branches) <= MAX_BRANCHES
    worker.commit("a", [255])
    worker._take_inbox()
    assert len(worker._draftings["a"].branches) == 1
    worker._model.check_integrity()


def test_sequences_of_several_verifiers_share_forwards_and_unknown_keys_are_ignored(loaded: LoadedModel) -> None:
    worker = make_worker(loaded)
    keys = [(stream, key) for stream in range(2) for key in range(2)]
    for number, key in enumerate(keys):
        worker.open(key, opening((*PROMPT, 40 + number)))
    worker.commit("nobody", [1])
    worker.close("nobody")
    first = worker.step()
    assert first is not None
    assert {one.key for one in first} == set(keys)
    for number, key in enumerate(keys):
        tree = grow(OutcomeTree((*PROMPT, 40 + number), 1000), first, key)
        assert tree.best(1).token_ids == choices(loaded, opening((*PROMPT, 40 + number)), 1)


def test_a_sequence_that_does_not_fit_is_left_alone_and_harms_no_other(loaded: LoadedModel) -> None:
    worker = make_worker(loaded, num_blocks=12)
    worker.open("long", opening(tuple(range(1, 101))))
    worker.open("a", opening())
    found = drain(worker)
    assert {one.key for one in found} == {"a"}
    worker.commit("long", [1])
    assert all(one.key == "a" for one in drain(worker))
    worker.close("long")
    worker.close("a")
    assert worker.step() is None
    worker._model.check_integrity()


def test_its_thread_delivers_what_it_finds_rests_and_ends(loaded: LoadedModel) -> None:
    found: list[Drafted] = []
    arrived = threading.Event()

    def deliver(drafts: list[Drafted]) -> None:
        found.extend(drafts)
        arrived.set()

    worker = DraftWorker(DraftModel(loaded, 128, block_size=4), deliver)
    worker.start()
    assert worker.healthy
    worker.open("a", opening(max_draft_tokens=1))
    assert arrived.wait(WAIT_S)
    assert found[0].token_ids == choices(loaded, opening(), 1)
    arrived.clear()
    worker.commit("a", [found[0].token_ids[0]])
    assert arrived.wait(WAIT_S)
    worker.stop()
    assert not worker.healthy
    assert worker.failure is None
    assert not [thread for thread in threading.enumerate() if thread.name == "zenray-draft"]


def test_a_model_that_fails_ends_the_thread_and_says_so(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DraftModel(loaded, 128, block_size=4)
    worker = DraftWorker(model, deliver=lambda found: None)

    def fail(*_: object, **__: object) -> Iterator[None]:
        raise RuntimeError("the accelerator is gone")

    monkeypatch.setattr(model, "extend", fail)
    worker.start()
    worker.open("a", opening())
    worker._thread.join(WAIT_S)
    assert not worker.healthy
    assert isinstance(worker.failure, RuntimeError)


class _Nobody:
    path = ()


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30))
def test_rows_join_a_forward_while_they_make_it_more_useful_per_time(survivals: list[float]) -> None:
    work = [Work(survival, None, _Nobody()) for survival in survivals]  # type: ignore[arg-type]
    chosen = [one.survival for one in choose_work(work)]
    ordered = sorted(survivals, reverse=True)
    assert chosen == ordered[: len(chosen)]
    assert 1 <= len(chosen) <= MAX_ROWS

    def usefulness(count: int) -> float:
        return sum(ordered[:count]) / (1 + ROW_COST * (count - 1))

    best = max(usefulness(count) for count in range(1, min(MAX_ROWS, len(ordered)) + 1))
    assert usefulness(len(chosen)) == pytest.approx(best)
