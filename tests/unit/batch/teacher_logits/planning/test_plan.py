"""A plan: which documents, in which order, and what is said of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.planning.planning_examples import TEXTS, by_path, document, documents_of
from zenray.batch.inputs.document import SourceDocument
from zenray.batch.rows import row_ids_digest
from zenray.batch.teacher_logits.planning.account import PlanAccount
from zenray.batch.teacher_logits.planning.choose import choose_documents
from zenray.batch.teacher_logits.planning.ends import end_of_infill, end_of_text
from zenray.batch.teacher_logits.planning.plan import Plan, plan_sequences
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.errors import ConfigError
from zenray.model.tokenizer import ByteTokenizer

SETTINGS = PlanSettings(window_tokens=64, overlap_tokens=16, min_document_tokens=4)


def planned(documents: list[SourceDocument], settings: PlanSettings = SETTINGS, seed: int = 0) -> Plan:
    return plan_sequences(documents, ByteTokenizer(), settings, seed, say=lambda _: None)


@cache
def many() -> tuple[SourceDocument, ...]:
    """Documents of 10 to 500 tokens."""
    lines = [f"value_{number} = {number * number}\n" for number in range(2000)]
    return tuple(documents_of("".join(lines[3 * n : 3 * n + 1 + n % 25]) for n in range(300)))


@given(
    texts=st.lists(TEXTS, max_size=12),
    random=st.randoms(use_true_random=False),
    seed=st.integers(0, 3),
    max_tokens=st.sampled_from([None, 1, 20]),
)
def test_the_order_of_the_documents_does_not_matter(
    texts: list[str], random: Random, seed: int, max_tokens: int | None
) -> None:
    documents = documents_of([*texts, *texts[:3]])  # Some texts lie at two places.
    shuffled = list(documents)
    random.shuffle(shuffled)
    settings = replace(SETTINGS, max_tokens=max_tokens)
    plan, again = planned(documents, settings, seed), planned(shuffled, settings, seed)
    assert plan.sequences == again.sequences
    assert plan.account == again.account
    assert (plan.counts_V == again.counts_V).all()


@given(st.lists(TEXTS, max_size=12), st.integers(0, 3))
def test_sequences_fit_and_differ_and_are_accounted_for(texts: list[str], seed: int) -> None:
    plan = planned(documents_of(texts), seed=seed)
    account = plan.account
    assert all(sequence.num_tokens <= SETTINGS.window_tokens for sequence in plan.sequences)
    assert len({sequence.row_id for sequence in plan.sequences}) == len(plan.sequences) == account.num_sequences
    segments = [segment for sequence in plan.sequences for segment in sequence.segments]
    assert (account.num_segments, account.num_tokens) == (len(segments), sum(len(each.token_ids) for each in segments))
    assert account.num_scored == account.scored_by_mode.total() == account.scored_by_language.total()
    assert account.num_documents == account.num_planned_documents + account.documents_left_out.total()
    scored = Counter(token for each in segments for token in each.token_ids[each.first_scored :])
    assert {int(token): int(plan.counts_V[token]) for token in plan.counts_V.nonzero()[0]} == scored


def test_a_plan_is_the_same_on_every_machine() -> None:
    """Whoever changes it on purpose raises the job's version: old outputs cannot be resumed with the new plan."""
    plan = planned(list(many()), seed=11)
    digest = row_ids_digest(sequence.row_id for sequence in plan.sequences)
    assert digest == "2e42fec05738e1aba515ce600ddb9edd1d72d38dab090608dc7ee02e4ae0c690"


def test_another_seed_samples_and_splits_otherwise() -> None:
    settings = replace(SETTINGS, max_tokens=3000)
    one, other = (by_path(planned(list(many()), settings, seed).sequences).keys() for seed in (0, 1))
    assert len(one & other) < len(one) / 2
    infills = replace(SETTINGS, fim_rate=1)
    whole_one, whole_other = (planned(list(many()), infills, seed).sequences for seed in (0, 1))
    assert len({each.row_id for each in whole_one} & {each.row_id for each in whole_other}) < len(whole_one) / 20


@pytest.mark.parametrize("max_tokens", [1, 500, 3000, 10**9])
def test_so_many_tokens_are_enough(max_tokens: int) -> None:
    everything = planned(list(many()))
    plan = planned(list(many()), replace(SETTINGS, max_tokens=max_tokens))
    if max_tokens > everything.account.num_scored:
        assert plan.sequences == everything.sequences
        return
    assert max_tokens <= plan.account.num_scored < max_tokens + SETTINGS.window_tokens
    assert plan.account.documents_left_out["beyond max_tokens"] > 0
    # What there is of a document is what there would be without a limit.
    whole, part = by_path(everything.sequences), by_path(plan.sequences)
    assert all(whole[path][: len(segments)] == segments for path, segments in part.items())
    assert sum(len(part[path]) < len(whole[path]) for path in part) <= 1


def test_documents_that_a_limit_has_no_room_for_are_not_kept() -> None:
    account = PlanAccount()
    chosen = choose_documents(many(), replace(SETTINGS, max_tokens=100), 0, account)
    enough = 100 * 64
    lengths = [len(each.document.text) for each in chosen]
    assert sum(lengths[:-1]) < enough <= sum(lengths)
    assert account.documents_left_out == {"beyond max_tokens": len(many()) - len(chosen)}
    assert chosen == choose_documents(many(), SETTINGS, 0, PlanAccount())[: len(chosen)]


def test_a_limit_chooses_documents_whatever_their_length() -> None:
    """The mean length of the documents that a tenth of all tokens is made of is that of all documents."""
    lengths = {each.path: len(each.text) for each in many()}
    mean = sum(lengths.values()) / len(lengths)
    deviation = (sum((each - mean) ** 2 for each in lengths.values()) / len(lengths)) ** 0.5
    for seed in range(5):
        paths = by_path(planned(list(many()), replace(SETTINGS, max_tokens=4000), seed).sequences)
        found = sum(lengths[path] for path in paths) / len(paths)
        assert abs(found - mean) < 4 * deviation / len(paths) ** 0.5


def test_of_copies_the_first_place_stands_for_all() -> None:
    text = "def f():\n    return 1\n"
    copies = [document(text, path, repository) for repository in "ba" for path in ("z.py", "a/b.py")]
    plan = planned([*copies, document(text + "\n", "other.py")])
    places = {(each.repository, each.path) for sequence in plan.sequences for each in sequence.segments}
    assert places == {("a", "a/b.py"), ("r", "other.py")}
    assert plan.account.documents_left_out == {"copy of another document": 3}


def test_windows_that_two_documents_share_are_scored_once() -> None:
    head = "".join(f"# line {number} of a licence\n" for number in range(20))
    settings = replace(SETTINGS, fim_rate=0)
    plan = planned([document(head + "one = 1\n"), document(head + "two = 2\n", "b.py")], settings)
    alone = planned([document(head + "one = 1\n")], settings)
    assert plan.account.windows_left_out["copy of another window"] == alone.account.num_segments - 1
    assert len({each.row_id for each in plan.sequences}) == len(plan.sequences)


def test_languages_are_known_by_path_or_first_line_and_filtered_before_copies_are_left_out() -> None:
    text = "#!/usr/bin/env python\nprint('hello')\n"
    copies = [document(text, "a.txt"), document(text, "b.py")]
    documents = [*copies, document(text + "#", "script"), document("fn x() {}", "m.rs")]
    settings = replace(SETTINGS, languages=("py",))  # As Visual Studio Code has it or as people say.
    plan = planned(documents, settings)
    assert plan.account.scored_by_language.keys() == {"python"}
    assert by_path(plan.sequences).keys() == {"b.py", "script"}
    assert plan.account.documents_left_out == {"in another language": 2}
    unknown = planned([document("what is this\n", "x.unheard-of")])
    assert unknown.account.scored_by_language.keys() == {"plaintext"}


def test_a_language_nobody_knows_is_an_error_not_an_empty_plan() -> None:
    with pytest.raises(ConfigError, match="languages has 'pyton'; allowed: ids as editors have them, such as python"):
        replace(SETTINGS, languages=("pyton",))


def test_documents_that_are_too_short_are_left_out_and_nothing_is_no_error() -> None:
    plan = planned([document("abc"), document("abcd", "b.py")])
    assert plan.account.documents_left_out == {"fewer than 4 tokens": 1} and plan.account.num_planned_documents == 1
    empty = planned([])
    assert (empty.sequences, empty.counts_V.sum(), empty.account.packing_efficiency) == ((), 0, 0)


@pytest.mark.parametrize(
    ("names", "text_end", "infill_end"),
    [
        ({1: "<|im_end|>", 5: "<|endoftext|>", 9: "<|fim_pad|>"}, 5, 5),
        ({2: "</s>", 9: "▁<EOT>"}, 2, 9),
        ({3: "<|eot_id|>", 4: "<|end_of_text|>"}, 4, 4),
        ({7: "<my end>", 8: "<my other end>"}, 7, 7),
    ],
)
def test_a_text_ends_as_its_model_ends_files_not_turns(names: dict[int, str], text_end: int, infill_end: int) -> None:
    class Named(ByteTokenizer):
        def __init__(self) -> None:
            super().__init__()
            self._control_tokens, self.eos_token_ids = names, frozenset(names)

    assert (end_of_text(Named()), end_of_infill(Named())) == (text_end, infill_end)


def test_a_model_that_ends_no_text_cannot_be_planned_for() -> None:
    class Endless(ByteTokenizer):
        def __init__(self) -> None:
            super().__init__()
            self.eos_token_ids = frozenset()

    with pytest.raises(ConfigError, match="no end-of-text token"):
        plan_sequences([document("text")], Endless(), SETTINGS, 0, say=lambda _: None)
