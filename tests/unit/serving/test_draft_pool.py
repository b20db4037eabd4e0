"""The draft pool holds what the configuration names, and says so."""

from __future__ import annotations

import pytest

from zenray.config_load import load_config
from zenray.errors import NotFound
from zenray.serving.draft_pool import draft_info, load_draft_model


def test_a_configured_draft_is_loaded_in_its_own_format() -> None:
    config = load_config("tiny", None, ["draft.model=preset:tiny", "draft.weight_format=int8"])
    model = load_draft_model(config)
    info = draft_info(model, config)
    assert info is not None
    assert (info.name, info.weight_format) == ("preset:tiny", "int8")
    assert info.num_parameters > 0


def test_without_one_the_pool_is_empty_and_a_wrong_name_is_an_error() -> None:
    config = load_config("tiny")
    assert load_draft_model(config) is None
    assert draft_info(None, config) is None
    with pytest.raises(NotFound):
        load_draft_model(load_config("tiny", None, ["draft.model=preset:tyni"]))
