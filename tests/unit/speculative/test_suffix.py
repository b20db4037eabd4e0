from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.engine.request import GenerateRequest, Limits
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import NUM_CLASSES, Draft, Round
from zenray.model.tokenizer import FimTokens
from zenray.speculative.copier import Copier
from zenray.speculative.drafter import FREE, Ask, DrafterStatus
from zenray.speculative.history import SEPARATOR, SessionHistory, TokenText
from zenray.speculative.suffix import SuffixDrafter, confidence_classes

NO_LOGITS = torch.empty(0, 0)
FIM = FimTokens(prefix=1000, suffix=1001, middle=1002)
TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def make_drafter(session_tokens: int = 4096, max_sessions: int = 4) -> SuffixDrafter:
    return SuffixDrafter(session_tokens, max_sessions, FIM)


def sequence_of(prompt: list[int], session_id: str = "") -> Sequence:
    request = GenerateRequest("r", tuple(prompt), limits=Limits(max_tokens=10_000), session_id=session_id)
    return Sequence(1, 0, request, seed=0, arrival_s=0.0, arrival_number=0)


def draft(
    drafter: SuffixDrafter,
    sequence: Sequence,
    max_tokens: int = 64,
    min_survival: float = 0.0,
    probability: Callable[[int], float] = lambda token_class: 1.0,
) -> Draft | None:
    (made,) = drafter.offer([Ask(sequence, max_tokens, min_survival, probability)])
    return made


def verify(
    drafter: SuffixDrafter, sequence: Sequence, output: list[int], gamma: int
) -> list[tuple[tuple[int, ...], int]]:
    """Generates `output`, whatever is drafted; of every round the draft and how many of its tokens were right."""
    rounds = []
    position = 0
    while position < len(output):
        room = min(gamma, len(output) - position - 1)
        made = draft(drafter, sequence, room) if room else None
        token_ids = made.token_ids if made else ()
        right = 0
        while right < len(token_ids) and token_ids[right] == output[position + right]:
            right += 1
        for token_id in output[position : position + right + 1]:
            sequence.append_token(token_id, 0.0)
        drafter.observe([Round(sequence, made, right, right + 1, 0)], NO_LOGITS)
        rounds.append((token_ids, right))
        position += right + 1
    return rounds


def generate(drafter: SuffixDrafter, sequence: Sequence, output: list[int], gamma: int = 64) -> list[int]:
    """The accepted tokens of every round."""
    return [right for _, right in verify(drafter, sequence, output, gamma)]


def test_a_repeated_text_is_copied_64_tokens_at_a_time() -> None:
    text = list(range(100, 300))
    drafter, sequence = make_drafter(), sequence_of([*text, 1, *text[:2]])
    drafter.opened(sequence)
    made = draft(drafter, sequence)
    assert made is not None
    assert (made.drafter, made.token_ids) == ("suffix", tuple(text[2:66]))
    assert made.classes == tuple(sorted(made.classes))  # surer with every token that was right
    assert sum(generate(drafter, sequence, text[2:])) == 198 - 4  # 64 + 1, 64 + 1, 64 + 1, 2 + 1


def test_periodic_text_goes_on_beyond_what_is_known() -> None:
    drafter, sequence = make_drafter(), sequence_of([9, 1, 2, 3, 1, 2, 3])
    drafter.opened(sequence)
    made = draft(drafter, sequence, 10)
    assert made is not None
    assert made.token_ids == (1, 2, 3, 1, 2, 3, 1, 2, 3, 1)


def test_an_infill_continues_its_prefix_and_copies_from_its_suffix() -> None:
    drafter = make_drafter()
    prefix, suffix = [10, 11, 12, 20, 21], [30, 20, 21, 22, 23, 24]
    sequence = sequence_of([FIM.prefix, *prefix, FIM.suffix, *suffix, FIM.middle])
    drafter.opened(sequence)
    made = draft(drafter, sequence)
    assert made is not None
    assert made.token_ids == (22, 23, 24)


def test_a_session_copies_from_its_own_earlier_requests_only() -> None:
    drafter = make_drafter()
    answer = [50, 51, 52, 53]
    first = sequence_of([7, 8], session_id="mine")
    drafter.opened(first)
    generate(drafter, first, answer)
    drafter.closed(first)
    drafts = {}
    for session_id in ("mine", "yours", ""):
        sequence = sequence_of([6, 7, 8], session_id)
        drafter.opened(sequence)
        drafts[session_id] = draft(drafter, sequence)
    assert drafts["yours"] is None
    assert drafts[""] is None
    mine = drafts["mine"]
    assert mine is not None
    assert mine.token_ids == tuple(answer)


def test_a_renamed_variable_is_renamed_again() -> None:
    # The variable is 7; every use stands in other surroundings. The model writes 8 9 for it.
    uses = [[100 * use + offset for offset in range(20)] for use in range(1, 7)]
    prompt = [token_id for use in uses for token_id in (*use, 7)]
    renamed = [token_id for use in uses for token_id in (*use, 8, 9)]
    drafter, sequence = make_drafter(), sequence_of([*prompt, 1, *renamed[:4]])
    drafter.opened(sequence)
    accepted = generate(drafter, sequence, renamed[4:])
    # Interrupted by the first 7, which took three rounds to get over, and by the second, which was drafted before
    # that. From then on a draft runs through three uses at a time.
    assert accepted == [16, 0, 0, 19, 1, 64, 21]


def test_after_an_insertion_the_copy_goes_on_where_it_broke() -> None:
    text = list(range(100, 160))
    drafter, sequence = make_drafter(), sequence_of([*text, 1, *text[:10]])
    drafter.opened(sequence)
    assert generate(drafter, sequence, [*text[10:30], 7, *text[30:]]) == [20, 29]
    # One that did not see the copy break has nothing to say of the inserted token.
    blind = sequence_of([*text, 1, *text[:30], 7])
    drafter.opened(blind)
    assert draft(drafter, blind) is None


def test_after_a_replacement_the_copy_goes_on_behind_it() -> None:
    text = list(range(100, 200))
    changed = [*text[:30], 7, *text[31:60], 8, *text[61:]]
    drafter, sequence = make_drafter(), sequence_of([*text, 1, *text[:4]])
    drafter.opened(sequence)
    accepted = generate(drafter, sequence, changed[4:])
    assert sum(accepted) >= 90
    assert len(accepted) <= 6


def test_an_edit_that_was_wrong_once_is_not_made_again() -> None:
    # 7 becomes 8 once, and then stays 7.
    uses = [[100 * use + offset for offset in range(20)] for use in range(1, 6)]
    prompt = [token_id for use in uses for token_id in (*use, 7)]
    written = [*uses[0], 8, *(token_id for use in uses[1:] for token_id in (*use, 7))]
    drafter, sequence = make_drafter(), sequence_of([*prompt, 1, *written[:4]])
    drafter.opened(sequence)
    rounds = verify(drafter, sequence, written[4:], gamma=8)
    assert sum(8 in drafted for drafted, _ in rounds) == 1


def test_a_draft_ends_where_it_would_hardly_be_accepted() -> None:
    drafter, sequence = make_drafter(), sequence_of([*range(50), 77, 0])
    drafter.opened(sequence)

    def probability(token_class: int) -> float:
        return 0.5

    made = draft(drafter, sequence, min_survival=0.1, probability=probability)
    assert made is not None
    assert made.token_ids == (1, 2, 3)
    assert draft(drafter, sequence, min_survival=0.6, probability=probability) is None


@given(TOKENS, TOKENS, st.integers(1, 8))
def test_a_draft_is_the_continuation_of_an_earlier_occurrence(prompt: list[int], output: list[int], gamma: int) -> None:
    drafter, sequence = make_drafter(), sequence_of(prompt)
    drafter.opened(sequence)
    for token_id in output:
        sequence.append_token(token_id, 0.0)
    made = draft(drafter, sequence, gamma)
    text = sequence.token_ids
    occurred = text[-1] in text[:-1]
    assert (made is not None) == occurred
    if made is None:
        return
    assert 1 <= len(made.token_ids) == len(made.classes) <= gamma
    assert all(0 <= token_class < NUM_CLASSES for token_class in made.classes)
    places = [start for start in range(1, len(text)) if text[start - 1] == text[-1]]
    drafted = list(made.token_ids)
    extended = [*text, *drafted]
    assert any(extended[start : start + len(drafted)] == drafted for start in places)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "append", "offer", "close", "close unknown"]),
        st.integers(0, 3),
        st.lists(st.sampled_from([0, 1, 2, FIM.prefix, FIM.suffix, FIM.middle]), min_size=1, max_size=12),
    ),
    max_size=40,
)


def play(operations: list[tuple[str, int, list[int]]], session_tokens: int, max_sessions: int) -> list[Draft | None]:
    drafter = make_drafter(session_tokens, max_sessions)
    sequences: list[Sequence] = []
    drafts: list[Draft | None] = []
    for operation, which, token_ids in operations:
        if operation == "open":
            sequences.append(sequence_of(token_ids, session_id=["", "a", "b", "c"][which]))
            drafter.opened(sequences[-1])
        elif operation == "close unknown" or not sequences:
            stranger = sequence_of(token_ids)
            assert drafter.cost(stranger, 1) is None
            assert draft(drafter, stranger) is None
            drafter.closed(stranger)
        else:
            sequence = sequences[which % len(sequences)]
            if operation == "append":
                for token_id in token_ids:
                    sequence.append_token(token_id, 0.0)
            elif operation == "offer":
                drafts += [draft(drafter, sequence, len(token_ids))]
            else:
                drafter.closed(sequence)
        assert drafter.history.num_tokens <= session_tokens * max_sessions
    for sequence in sequences:
        drafter.closed(sequence)
    drafter.shutdown()
    assert drafter.history.num_tokens == 0
    return drafts


@settings(max_examples=300)
@given(OPERATIONS, st.integers(0, 30), st.integers(1, 2))
def test_any_order_of_calls_is_survived_within_the_memory_and_repeatable(
    operations: list[tuple[str, int, list[int]]], session_tokens: int, max_sessions: int
) -> None:
    drafts = play(operations, session_tokens, max_sessions)
    assert drafts == play(operations, session_tokens, max_sessions)
    assert all(made is None or SEPARATOR not in made.token_ids for made in drafts)


@settings(max_examples=300)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), max_size=30), TOKENS, st.integers(1, 12))
def test_whatever_becomes_of_its_copies_a_copier_copies_real_tokens(
    commits: list[list[int]], prompt: list[int], max_tokens: int
) -> None:
    history = SessionHistory(100, 1)
    history.remember("s", TokenText([3, 1, 4, 1, 5]).ids_N)
    copier = Copier(TokenText(prompt), history.recall("s"))
    for commit in commits:
        copy = copier.copy(max_tokens)
        if copy is not None:
            assert len(copy.token_ids) >= 1
            assert len(copy.token_ids) == len(copy.positions) == len(copy.edits) == len(confidence_classes(copy))
            assert set(copy.token_ids) <= {*prompt, *(t for c in commits for t in c), 1, 3, 4, 5}
        copier.extend(commit)


def test_it_is_free_while_the_sequence_is_open() -> None:
    drafter, sequence = make_drafter(), sequence_of([1])
    assert drafter.cost(sequence, 1) is None
    drafter.opened(sequence)
    assert drafter.cost(sequence, 8) == FREE
    assert drafter.status() == DrafterStatus()
    drafter.closed(sequence)
    assert drafter.cost(sequence, 1) is None
