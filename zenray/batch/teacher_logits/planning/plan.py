"""The door of this room: documents to sequences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.job import Say
from zenray.batch.rows import row_id
from zenray.batch.teacher_logits.model import PackedSequence, Segment
from zenray.batch.teacher_logits.planning.account import PlanAccount
from zenray.batch.teacher_logits.planning.choose import BEYOND_MAX_TOKENS, choose_documents
from zenray.batch.teacher_logits.planning.pack import pack
from zenray.batch.teacher_logits.planning.segments import Segmenter
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.model.tokenizer import Tokenizer

_DOCUMENTS_PER_NOTICE = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """`counts_V` [V] int64 says how often each token id is scored in all sequences."""

    sequences: tuple[PackedSequence, ...]
    counts_V: np.ndarray
    account: PlanAccount


def plan_sequences(
    documents: Iterable[SourceDocument], tokenizer: Tokenizer, settings: PlanSettings, seed: int, say: Say
) -> Plan:
    """What is to be scored of the documents, as sequences of at most a window in a random order.

    A function of the set of documents, the tokenizer, the settings and the seed: not of the order in which documents
    are given, nor of the machine. No text is planned twice and no segment either, so every sequence has another
    `row_id`, which is made of its tokens, what of them is scored, and their modes.

    Raises:
        ConfigError: the tokenizer has no end-of-text token, or none for infilling and `fim_rate` is above 0.
    """
    segmenter, account = Segmenter(tokenizer, settings, seed), PlanAccount(window_tokens=settings.window_tokens)
    chosen = choose_documents(documents, settings, seed, account)
    num_chosen = len(chosen)
    planned: dict[bytes, Segment] = {}
    chosen.reverse()
    while chosen and not _is_enough(account, settings):
        num_done = num_chosen - len(chosen)
        if num_done % _DOCUMENTS_PER_NOTICE == 0:
            say(f"tokenizing documents: {num_done:,} of {num_chosen:,}, {account.num_scored:,} tokens")
        num_given = 0
        for segment in segmenter.segments(chosen.pop()):  # Popped, so that texts make room for their tokens.
            num_given += 1
            key = _key(segment)
            if _is_enough(account, settings):
                account.windows_left_out[BEYOND_MAX_TOKENS] += 1
            elif key in planned:
                account.windows_left_out["copy of another window"] += 1
            else:
                planned[key] = segment
                account.add(segment)
        if num_given:
            account.num_planned_documents += 1
        else:
            account.documents_left_out[f"fewer than {settings.min_document_tokens} tokens"] += 1
    if chosen:
        account.documents_left_out[BEYOND_MAX_TOKENS] += len(chosen)
    say(f"packing {len(planned):,} segments")
    sequences = _packed(planned, settings.window_tokens)
    account.num_sequences = len(sequences)
    return Plan(sequences, _counts(sequences, tokenizer.vocab_size), account)


def _is_enough(account: PlanAccount, settings: PlanSettings) -> bool:
    return settings.max_tokens is not None and account.num_scored >= settings.max_tokens


def _key(segment: Segment) -> bytes:
    state = blake2b(f"{segment.first_scored} {segment.mode.value} ".encode(), digest_size=16)
    state.update(np.asarray(segment.token_ids, dtype="<u4").tobytes())
    return state.digest()


def _packed(planned: dict[bytes, Segment], window_tokens: int) -> tuple[PackedSequence, ...]:
    """In the order of their row ids, which being hashes shuffle them: every shard is a random sample."""
    keys, segments = list(planned), list(planned.values())
    sequences = (
        PackedSequence(
            row_id("teacher logits", *(keys[index].hex() for index in indexes)),
            tuple(segments[index] for index in indexes),
        )
        for indexes in pack([len(segment.token_ids) for segment in segments], window_tokens)
    )
    return tuple(sorted(sequences, key=lambda sequence: sequence.row_id))


def _counts(sequences: Iterable[PackedSequence], vocab_size: int) -> np.ndarray:
    counts_V = np.zeros(vocab_size, dtype=np.int64)
    for sequence in sequences:
        for segment in sequence.segments:
            np.add.at(counts_V, np.asarray(segment.token_ids)[segment.first_scored :], 1)
    return counts_V
