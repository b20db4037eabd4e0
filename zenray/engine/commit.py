"""From a step's logits to committed tokens: acceptance of drafts, stop rules, prefix cache."""

from __future__ import annotations

import torch

from zenray.engine.blocks import BlockPool
from zenray.engine.forcing import TokenPrefixes, restrict
from zenray.engine.request import FinishReason
from zenray.engine.sampler import apply_penalties, choose_token, has_penalties, is_plain_greedy, token_logprobs
from zenray.engine.scheduler import Scheduled
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Round
from zenray.model.tokenizer import Tokenizer


class Committer:
    """Books the results of a step with its sequences and publishes the blocks they fill."""

    def __init__(self, pool: BlockPool, tokenizer: Tokenizer) -> None:
        self._pool, self._tokenizer = pool, tokenizer
        self._prefixes = TokenPrefixes(tokenizer)

    def computed(self, sequence: Sequence, num_tokens: int) -> None:
        """The keys and values of the next `num_tokens` tokens are final: publish the blocks they filled."""
        block_size = self._pool.block_size
        first_open = sequence.num_computed // block_size
        sequence.num_computed += num_tokens
        if self._pool.prefix_cache:
            for block_index in range(first_open, sequence.num_computed // block_size):
                self._pool.publish(sequence.block_ids[block_index], sequence.block_hash(block_index, block_size))

    def round(
        self, scheduled: Scheduled, first_row: int, logits_RV: torch.Tensor, greedy: list[int], now_s: float
    ) -> tuple[Round, FinishReason | None]:
        """Plain decoding, row after row, for as long as the draft had guessed the token that was chosen.

        The next row saw exactly the tokens committed so far, so its choice is the one a step of its own would
        have made. After a wrong guess the later rows saw a wrong token and are ignored; their keys and
        values lie beyond `num_computed` and are written anew. `greedy` holds the argmax of every row.
        """
        sequence = scheduled.sequence
        draft = None
        if sequence.draft is not None and scheduled.num_draft:
            draft = sequence.draft.first(scheduled.num_draft)
        guesses = (*draft.token_ids, None) if draft is not None else (None,)
        num_committed = num_accepted = 0
        reason = None
        for row, guess in enumerate(guesses, first_row):
            token = self._choose(sequence, logits_RV[row], greedy[row])
            reason = self._append(sequence, token, logits_RV[row], now_s)
            num_committed += 1
            num_accepted += token == guess
            if token != guess or reason is not None:
                break
            self.computed(sequence, 1)
        sequence.draft = None
        sequence.count_round(draft, num_accepted)
        return Round(sequence, draft, num_accepted, num_committed, first_row), reason

    def _choose(self, sequence: Sequence, logits_V: torch.Tensor, greedy_token: int) -> int:
        """The token after the sequence's last one."""
        sampling, forced = sequence.request.sampling, sequence.output.forced
        if is_plain_greedy(sampling) and not forced:
            return greedy_token
        if has_penalties(sampling):
            logits_V = apply_penalties(logits_V, sampling, sequence.token_ids, sequence.output_counts)
        if forced:
            logits_V = restrict(logits_V, self._prefixes.allowed(forced))
        return choose_token(logits_V, sampling, sequence.seed, len(sequence.token_ids))

    def _append(self, sequence: Sequence, token: int, logits_V: torch.Tensor, now_s: float) -> FinishReason | None:
        """Commits a chosen token and applies the stop rules; the reason when it ends the choice."""
        sampling, limits = sequence.request.sampling, sequence.request.limits
        sequence.append_token(token, now_s)
        if sampling.logprobs is not None:
            sequence.unsent_logprobs += token_logprobs(logits_V[None], [token], sampling.logprobs)
        # A token that ends the choice is reported and counted, but is no text.
        if token in self._tokenizer.eos_token_ids and not limits.ignore_eos:
            return FinishReason.EOS
        if token in limits.stop_token_ids:
            return FinishReason.STOP
        sequence.output.append(self._tokenizer.token_bytes(token))
        if sequence.output.finish_reason is not None:
            return sequence.output.finish_reason
        return FinishReason.LENGTH if sequence.num_output >= limits.max_tokens else None
