"""The comparison of an upcycled model with its source tells a faithful one from a changed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenray.bench.upcycled import compare, markdown
from zenray.model.download import pull
from zenray.model.importing import import_model
from zenray.model.upcycle_settings import Upcycling
from zenray.model.upcycle_store import new_entry


@pytest.mark.parametrize(("settings", "faithful"), [(Upcycling(num_experts=4), True), (Upcycling(noise=1.0), False)])
def test_it_counts_what_is_equal(model_path: Path, settings: Upcycling, faithful: bool) -> None:
    import_model(model_path, "dense")
    pull(new_entry("moe", "dense", settings))
    found = compare("moe", tokens_each=64)
    assert found.num_positions == 8 * 64
    assert (found.top1_agreement == 1.0) == faithful
    assert (found.mean_kl < 1e-6) == faithful
    assert (found.num_equal_answers == found.num_prompts == 12) == faithful
    assert all(sum(loads) == pytest.approx(1) for loads in found.expert_loads)
    assert min(found.imbalances) >= 1
    assert "| moe | " in markdown(found)
