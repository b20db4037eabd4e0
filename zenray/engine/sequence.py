"""One choice of one request on its way through the engine: its tokens, blocks, counters and text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from zenray.engine.blocks import ROOT_HASH, chain_hash
from zenray.engine.noise import choice_seed
from zenray.engine.output import OutputText
from zenray.engine.request import DrafterUsage, FinishReason, GenerateRequest, Priority, Timings, TokenLogprob, Usage
from zenray.engine.speculation import Draft
from zenray.engine.stopping import TextRule

_BY_ITS_TEXT = (FinishReason.SCOPE_END, FinishReason.SUFFIX_MATCH, FinishReason.REPETITION)


class Sequence:
    """Owns everything that is true of one choice; nobody keeps shadow state beside it.

    `token_ids` is prompt plus output. `num_computed` of them have their keys and values in
    `block_ids`; the rest are pending. A preempted sequence has no blocks and everything pending.
    `next_read` is the first prompt position whose distribution was asked for and not read yet, `num_prompt` if there
    is none; it only grows, so that nothing is read twice.
    `draft` is what the next step verifies behind the pending token; it is no part of `token_ids`.
    """

    def __init__(
        self,
        handle: int,
        index: int,
        request: GenerateRequest,
        seed: int,
        arrival_s: float,
        arrival_number: int,
        rule: TextRule | None = None,
    ) -> None:
        self.handle = handle
        self.index = index
        self.request = request
        self.seed = choice_seed(seed, index)
        self.arrival_s = arrival_s
        self.order = (int(request.priority), arrival_number, index)
        deadline_ms = request.limits.deadline_ms
        self.deadline_s = None if deadline_ms is None else arrival_s + deadline_ms / 1000

        self.token_ids = list(request.prompt_token_ids)
        self.num_prompt = len(self.token_ids)
        self.next_read = self._first_read()
        self.num_computed = 0
        self.num_cached: int | None = None  # prompt tokens the prefix cache gave at first admission
        self.block_ids: list[int] = []
        self._block_hashes: list[bytes] = []

        self.draft: Draft | None = None
        self.num_rounds = 0
        self._drafter_usage: dict[str, DrafterUsage] = {}

        self.output = OutputText(request.limits, rule, request.forced_prefix)
        self.output_counts: Counter[int] = Counter()
        self.started = False
        # Nothing predicts the first token.
        self.prompt_logprobs = [TokenLogprob(self.token_ids[0], None)] if request.sampling.prompt_logprobs else []
        self.unsent_ids: list[int] = []
        self.unsent_logprobs: list[TokenLogprob] = []
        self.first_scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.finish_reason: FinishReason | None = None

    @property
    def priority(self) -> Priority:
        return self.request.priority

    def _first_read(self) -> int:
        if self.request.scoring is not None:
            return self.request.scoring.first_scored
        # Choice 0 speaks for the request.
        return 1 if self.request.sampling.prompt_logprobs and self.index == 0 else self.num_prompt

    @property
    def num_pending(self) -> int:
        """Tokens to be computed. The last one of a scored prompt is not: it predicts none of the others."""
        return len(self.token_ids) - (self.request.scoring is not None) - self.num_computed

    @property
    def num_output(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def is_decoding(self) -> bool:
        """Its next step produces a token from a single pending one."""
        return self.num_pending == 1 and self.num_output > 0

    @property
    def max_draft(self) -> int:
        """Draft tokens that could be of use: the last token to come is always the verifier's own."""
        return max(0, self.request.limits.max_tokens - self.num_output - 1)

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Prompt log-probabilities were asked for and are not complete."""
        return self.request.sampling.prompt_logprobs and self.next_read < self.num_prompt

    def findable_hashes(self, block_size: int) -> Iterator[bytes]:
        """Hash chain of the full blocks that may come from the prefix cache: those before the first token whose
        states are needed, to read the next distribution of the prompt or to choose the next token."""
        following = self.next_read if self.next_read < self.num_prompt else len(self.token_ids)
        for block_index in range((following - 1) // block_size):
            yield self.block_hash(block_index, block_size)

    def block_hash(self, block_index: int, block_size: int) -> bytes:
        """Hash of full block `block_index` and everything before it; computed once."""
        while len(self._block_hashes) <= block_index:
            start = len(self._block_hashes) * block_size
            parent = self._block_hashes[-1] if self._block_hashes else ROOT_HASH
            self._block_hashes.append(chain_hash(parent, self.token_ids[start : start + block_size]))
        return self._block_hashes[block_index]

    def append_token(self, token_id: int, now_s: float) -> None:
        """Commits a generated token; its key and value are pending."""
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.token_ids.append(token_id)
        self.output_counts[token_id] += 1
        self.unsent_ids.append(token_id)

    def count_round(self, draft: Draft | None, num_accepted: int) -> None:
        """Books a verified round."""
        self.num_rounds += 1
        if draft is not None:
            known = self._drafter_usage.get(draft.drafter, DrafterUsage(draft.drafter, 0, 0, 0))
            self._drafter_usage[draft.drafter] = DrafterUsage(
                draft.drafter,
                known.rounds + 1,
                known.drafted_tokens + len(draft.token_ids),
                known.accepted_tokens + num_accepted,
            )

    def usage(self) -> Usage:
        ended_early = self.finish_reason in _BY_ITS_TEXT
        return Usage(
            self.num_prompt,
            self.num_output,
            self.num_cached or 0,
            self.num_rounds,
            tuple(self._drafter_usage.values()),
            self.request.limits.max_tokens - self.num_output if ended_early else 0,
        )

    def timings(self, now_s: float) -> Timings:
        def since_arrival_ms(moment_s: float | None) -> float:
            return 0.0 if moment_s is None else (moment_s - self.arrival_s) * 1000

        return Timings(
            since_arrival_ms(self.first_scheduled_s), since_arrival_ms(self.first_token_s), since_arrival_ms(now_s)
        )
