"""Options of the job: what they refuse names the option, and what is left out follows the rest."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from zenray.batch.teacher_logits.settings import TeacherLogitsSettings


@pytest.mark.parametrize(
    ("options", "place", "allowed"),
    [
        ({"format": "top-0"}, ("format",), "top-1 to top-256"),
        ({"hidden_layers": [-1]}, ("hidden_layers",), "numbers from 0 on"),
        ({"planning": {"overlap_tokens": 2049}}, ("planning", "overlap_tokens"), "1 to 2048, half of window_tokens"),
        (
            {"planning": {"window_tokens": 64, "overlap_tokens": 33}},
            ("planning", "overlap_tokens"),
            "1 to 32, half of window_tokens",
        ),
        ({"planning": {"languages": ["pythn"]}}, ("planning", "languages"), "python"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(
    options: dict[str, object], place: tuple[str, ...], allowed: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        TeacherLogitsSettings.model_validate(options)
    (problem,) = refused.value.errors()
    assert problem["loc"] == place
    assert allowed in problem["msg"]


@pytest.mark.parametrize("window_tokens", [16, 256, 4096])
def test_the_overlap_follows_the_window_unless_it_is_given(window_tokens: int) -> None:
    for given, expected in ((None, window_tokens // 8), (3, 3)):
        options = {"window_tokens": window_tokens, "overlap_tokens": given}
        settings = TeacherLogitsSettings.model_validate({"planning": options})
        assert settings.planning.settings().overlap_tokens == expected


def test_layers_are_kept_in_their_order_and_once() -> None:
    assert TeacherLogitsSettings(hidden_layers=(3, 0, 3)).hidden_layers == (0, 3)
