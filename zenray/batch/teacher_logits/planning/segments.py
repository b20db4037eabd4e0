"""A document as segments: plain windows, or pieces for infilling."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from zenray.batch.teacher_logits.model import Mode, Segment
from zenray.batch.teacher_logits.planning.choose import ChosenDocument
from zenray.batch.teacher_logits.planning.cut import TokenMeasure, cut, reach, windows
from zenray.batch.teacher_logits.planning.draws import Draws
from zenray.batch.teacher_logits.planning.ends import end_of_infill, end_of_text
from zenray.batch.teacher_logits.planning.fim import arrange, required_fim, split_text
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.model.tokenizer import Tokenizer

_NUM_FIM_CONTROL_TOKENS = 4
_SLACK_SHARE = 256  # A piece gets so small a part of a window less than fits: splitting words makes more tokens.


class Segmenter:
    """Makes segments of at most a window each. Raises ConfigError at once where the tokenizer cannot do what the
    settings ask."""

    def __init__(self, tokenizer: Tokenizer, settings: PlanSettings, seed: int) -> None:
        self._tokenizer, self._settings, self._seed = tokenizer, settings, seed
        self._end_of_text, self._end_of_infill = end_of_text(tokenizer), end_of_infill(tokenizer)
        self._bos = _bos(tokenizer)
        self._capacity = settings.window_tokens - len(self._bos)
        self._measure = TokenMeasure(tokenizer)
        if settings.fim_rate > 0:
            required_fim(tokenizer)

    def segments(self, chosen: ChosenDocument) -> Iterator[Segment]:
        """In the document's order; none for a document that is too short to be planned.

        Whether it is transformed for infilling is drawn once for the whole document, then for every piece of it where
        it is split and how it is arranged.
        """
        token_ids = array("I", self._tokenizer.encode(chosen.document.text))
        if len(token_ids) < self._settings.min_document_tokens:
            return
        draws = Draws(self._seed, chosen.document_id)
        if draws.chance(self._settings.fim_rate, "fim"):
            yield from self._infills(chosen, token_ids, draws)
        else:
            yield from self._windows(chosen, token_ids)

    def _windows(self, chosen: ChosenDocument, token_ids: array[int]) -> Iterator[Segment]:
        token_ids.append(self._end_of_text)
        for number, window in enumerate(windows(len(token_ids), self._capacity, self._settings.overlap_tokens)):
            num_context = window.first_scored - window.begin
            yield self._segment(chosen, token_ids[window.begin : window.end], num_context, Mode.PLAIN, number)

    def _infills(self, chosen: ChosenDocument, token_ids: array[int], draws: Draws) -> Iterator[Segment]:
        data, ends_T = chosen.document.text.encode(), self._measure.ends(token_ids)
        assert ends_T[-1] == len(data), "tokens stand for the bytes of their text"
        num_text_tokens = self._capacity - _NUM_FIM_CONTROL_TOKENS - self._capacity // _SLACK_SHARE
        begin = number = 0
        while begin < len(data):
            mode = Mode.SPM if draws.chance(self._settings.spm_share, "spm", number) else Mode.PSM
            most = reach(ends_T, begin, num_text_tokens)
            while True:
                end = cut(data, begin, most)
                split = split_text(data[begin:end].decode(), draws, number)
                arranged = arrange(split, mode, self._tokenizer, self._end_of_infill)
                if len(arranged) <= self._capacity:
                    break
                # Ends: no token encodes less than a byte, and a window has room for any one character's.
                most = begin + (end - begin) * self._capacity // len(arranged)
            yield self._segment(chosen, arranged, 0, mode, number)
            begin, number = end, number + 1

    def _segment(
        self, chosen: ChosenDocument, token_ids: array[int], num_context: int, mode: Mode, number: int
    ) -> Segment:
        document = chosen.document
        return Segment(
            token_ids=self._bos + token_ids,
            first_scored=max(1, len(self._bos) + num_context),
            mode=mode,
            language=chosen.language,
            path=document.path,
            repository=document.repository,
            revision=document.revision,
            licence_file=document.licence_file,
            window=number,
        )


def _bos(tokenizer: Tokenizer) -> array[int]:
    """What the model wants at the beginning of whatever it reads, as in requests."""
    if not tokenizer.add_bos or tokenizer.bos_token_id is None:
        return array("I")
    return array("I", [tokenizer.bos_token_id])
