"""Source code, planned with the tokenizer of a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

import zenray
from tests.unit.batch.teacher_logits.planning.planning_examples import by_path, document, read_infill
from zenray.batch.teacher_logits.model import Mode
from zenray.batch.teacher_logits.planning.plan import plan_sequences
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.model.load import load_tokenizer

END_OF_TEXT = 151643

pytestmark = pytest.mark.real_model


def test_source_code_is_read_back_from_its_plan(real_model_05b: Path) -> None:
    tokenizer = load_tokenizer(real_model_05b)
    sources = sorted((Path(zenray.__file__).parent / "context").rglob("*.py"))
    texts = {str(path): path.read_text() for path in sources}
    texts["chat.py"] = "fim = '<|fim_prefix|>', '<|fim_middle|>', '<|endoftext|>', '\u65e5\u672c \U0001f642'\n" * 3
    settings = PlanSettings(window_tokens=512, overlap_tokens=64, min_document_tokens=1)
    documents = [document(text, path) for path, text in texts.items() if text]
    plan = plan_sequences(documents, tokenizer, settings, seed=0, say=lambda _: None)
    assert plan.account.packing_efficiency > 0.95 and len(plan.account.segments_by_mode) == 3
    control = tokenizer.control_token_ids - {END_OF_TEXT}
    for path, segments in by_path(plan.sequences).items():
        if segments[0].mode is not Mode.PLAIN:
            assert "".join(read_infill(each, tokenizer, END_OF_TEXT).text for each in segments) == texts[path]
            continue
        ids = [*segments[0].token_ids[:1], *(each for one in segments for each in one.token_ids[one.first_scored :])]
        assert tokenizer.decode(ids) == texts[path] and ids[-1] == END_OF_TEXT
        assert END_OF_TEXT not in ids[:-1] and not control.intersection(ids)
