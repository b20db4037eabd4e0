"""The draft pool holds what the configuration names, and says so."""

from __future__ import annotations

import pytest

from zenray.config_load import load_config
from zenray.errors import NotFound
from zenray.serving.draft_pool import draft_info
from zenray.speculative.draft_model import load_draft_model

POOL = ("draft.model=preset:tiny", "speculation.drafters=[draft_pool]")


def test_a_configured_draft_is_loaded_in_its_own_format() -> None:
    config = load_config("tiny", None, [*POOL, "draft.weight_format=int8"])
    info = draft_info(load_draft_model(config), config)
    assert (info.name, info.weight_format) == ("preset:tiny", "int8")
    assert info.num_parameters > 0
    with pytest.raises(NotFound):
        load_draft_model(load_config("tiny", None, ["draft.model=preset:tyni"]))


def test_it_runs_where_it_is_asked_and_has_a_model() -> None:
    assert load_config("tiny", None, POOL).has_draft_pool
    for missing in ("draft.num_replicas=0", "speculation.gamma=0", "speculation.drafters=[]"):
        assert not load_config("tiny", None, [*POOL, missing]).has_draft_pool
