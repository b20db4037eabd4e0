"""Whether the records of a stream are those that were asked for."""

from __future__ import annotations

from zenray.engine.request import Final, FinishReason, GenerateRequest, Scored, ScoreEvent
from zenray.engine.scoring import ScoredRows


class AskedRecords:
    """Follows one stream: positions without gaps from first to last, each with what the request's `scoring` keeps."""

    def __init__(self, request: GenerateRequest) -> None:
        assert request.scoring is not None
        self._scoring = request.scoring
        self._next_position, self._end = request.scoring.first_scored, len(request.prompt_token_ids)
        self._widths: set[int] = set()  # Of hidden states: one model has one.

    def check(self, event: ScoreEvent) -> None:
        """Raises ValueError for an event that does not belong there."""
        if isinstance(event, Scored):
            self._check_rows(event.rows)
        elif isinstance(event, Final):
            is_whole = self._next_position == self._end
            if event.finish_reason is FinishReason.LENGTH and not is_whole:
                raise ValueError(f"records end at position {self._next_position} of {self._end}")

    def _check_rows(self, rows: ScoredRows) -> None:
        kept, layers = self._scoring.format, self._scoring.hidden_layers
        if rows.first_position != self._next_position or rows.end_position > self._end:
            raise ValueError(
                f"records of positions {rows.first_position} to {rows.end_position - 1} where {self._next_position} to "
                f"{self._end - 1} are to come"
            )
        if rows.head_counts_R.max() > kept.max_head:
            raise ValueError(f"a head of {rows.head_counts_R.max()} tokens where {kept.max_head} are kept")
        if rows.tail_ids_RS.shape[1] != kept.num_tail_samples:
            raise ValueError(f"{rows.tail_ids_RS.shape[1]} tail samples where {kept.num_tail_samples} are kept")
        if set(rows.hidden) != set(layers):
            raise ValueError(f"hidden states of layers {sorted(rows.hidden)}, not {sorted(layers)}")
        self._widths |= {states.values_RD.shape[1] for states in rows.hidden.values()}
        if len(self._widths) > 1:
            raise ValueError(f"hidden states {sorted(self._widths)} wide")
        self._next_position = rows.end_position
