"""Every bound, by table: the field is named as the caller wrote it, and all bad fields at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zenray.api.convert import default_limits, default_sampling
from zenray.api.service import ModelCard
from zenray.api.validate import check_request, check_size
from zenray.context.request import CompletionInput, CompletionRequest, EditorState, Infill, TextPrompt, TokenPrompt
from zenray.errors import InvalidRequest, NotFound

NAN, INF = float("nan"), float("inf")


def request_of(card: ModelCard, given: CompletionInput | None = None, **fields: object) -> CompletionRequest:
    """A good request, with sampling and limits fields replaced by name."""
    sampling, limits = default_sampling(card), default_limits(card)
    other = {}
    for name, value in fields.items():
        if hasattr(sampling, name):
            sampling = replace(sampling, **{name: value})
        elif hasattr(limits, name):
            limits = replace(limits, **{name: value})
        else:
            other[name] = value
    return CompletionRequest("id", given or TextPrompt("def f("), sampling=sampling, limits=limits, **other)


def bad_fields(card: ModelCard, request: CompletionRequest) -> list[str]:
    with pytest.raises(InvalidRequest) as raised:
        check_request(request, card)
    assert all(violation.allowed for violation in raised.value.violations)
    return [violation.field for violation in raised.value.violations]


BAD_VALUES = [
    *[("temperature", value) for value in (-0.1, 10.1, NAN, INF, -INF)],
    *[("top_p", value) for value in (0.0, -1.0, 1.0001, NAN, INF)],
    *[("repetition_penalty", value) for value in (0.0, -1.0, 10.5, NAN, INF)],
    *[(name, value) for name in ("presence_penalty", "frequency_penalty") for value in (-2.1, 2.1, NAN, -INF)],
    *[("top_k", value) for value in (-1, 2**31)],
    *[("seed", value) for value in (-1, 2**63)],
    *[("n", value) for value in (0, 9, 10**9)],
    *[("logprobs", value) for value in (-1, 21)],
    *[("max_tokens", value) for value in (-1, 4097, 10**18)],
    *[("max_lines", value) for value in (-1, 2**31)],
    *[("deadline_ms", value) for value in (0, -5, 600_001)],
]
LIMITS = {"max_tokens", "max_lines", "deadline_ms", "stop", "stop_token_ids"}


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_value_out_of_range_is_named(card: ModelCard, name: str, value: float) -> None:
    section = "limits" if name in LIMITS else "sampling"
    assert bad_fields(card, request_of(card, **{name: value})) == [f"{section}.{name}"]


GOOD_VALUES = [
    *[("temperature", value) for value in (0.0, 10.0, 1e-30)],
    *[("top_p", value) for value in (1e-9, 1.0)],
    *[("presence_penalty", value) for value in (-2.0, 2.0)],
    *[("seed", value) for value in (None, 0, 2**63 - 1)],
    *[("n", value) for value in (1, 8)],
    *[("logprobs", value) for value in (None, 0, 20)],
    *[("max_tokens", value) for value in (0, 4096)],
    *[("deadline_ms", value) for value in (None, 1, 600_000)],
    *[("stop", value) for value in ((), ("x",) * 16, ("é" * 256,))],
    *[("stop_token_ids", value) for value in ((0, 263),)],
]


@pytest.mark.parametrize(("name", "value"), GOOD_VALUES)
def test_the_ends_of_every_range_are_allowed(card: ModelCard, name: str, value: object) -> None:
    check_request(request_of(card, **{name: value}), card)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (TextPrompt(""), "prompt"),
        (TextPrompt("a\ud800"), "prompt"),
        (TokenPrompt(()), "prompt_token_ids"),
        (TokenPrompt((0, 264)), "prompt_token_ids[1]"),
        (TokenPrompt((5, 5, -1)), "prompt_token_ids[2]"),
        (TokenPrompt((2**70,)), "prompt_token_ids[0]"),
        (Infill("", ""), "infill"),
        (Infill("\udfff", "x"), "infill.prefix"),
        (Infill("x", "\ud83d"), "infill.suffix"),
        (EditorState("a\ud800.py", "python", "x", 0), "editor.path"),
        (EditorState("x" * 5000, "python", "x", 0), "editor.path"),
        (EditorState("a\0/b.py", "python", "x", 0), "editor.path"),
        (EditorState("a.py", "python", "\ud800", 0), "editor.text"),
    ],
)
def test_a_bad_input_is_named(card: ModelCard, given: CompletionInput, field: str) -> None:
    assert bad_fields(card, request_of(card, given)) == [field]


@pytest.mark.parametrize(
    "given",
    [
        TextPrompt("<|fim_middle|>"),
        TextPrompt("\x00"),
        TextPrompt("🙂"),
        TokenPrompt((0, 263)),
        Infill("", "x"),
        Infill("x", ""),
        EditorState("", "", "", 0),
    ],
)
def test_odd_but_good_inputs_pass(card: ModelCard, given: CompletionInput) -> None:
    check_request(request_of(card, given), card)


@pytest.mark.parametrize(
    ("stop", "fields"),
    [
        (("",), ["limits.stop[0]"]),
        (("a", "x" * 257, "\ud800"), ["limits.stop[1]", "limits.stop[2]"]),
        (("a",) * 17, ["limits.stop"]),
        (("",) * 100_000, ["limits.stop", *(f"limits.stop[{i}]" for i in range(16))]),
    ],
)
def test_stop_strings(card: ModelCard, stop: tuple[str, ...], fields: list[str]) -> None:
    assert bad_fields(card, request_of(card, stop=stop)) == fields


def test_all_violations_are_reported_at_once(card: ModelCard) -> None:
    request = request_of(card, TextPrompt(""), temperature=NAN, n=0, max_tokens=-1, stop=("",), stop_token_ids=(999,))
    assert bad_fields(card, request) == [
        "prompt",
        "sampling.temperature",
        "sampling.n",
        "limits.max_tokens",
        "limits.stop[0]",
        "limits.stop_token_ids[0]",
    ]


@pytest.mark.parametrize("name", ["request_id", "session_id"])
@pytest.mark.parametrize("value", ["x" * 129, "a\nb", "\ud800"])
def test_ids_are_short_and_printable(card: ModelCard, name: str, value: str) -> None:
    assert bad_fields(card, replace(request_of(card), **{name: value})) == [name]


def test_an_unknown_model_is_not_found_and_the_near_one_offered(card: ModelCard) -> None:
    check_request(request_of(card, model="tiny-coder"), card)
    with pytest.raises(NotFound, match="did you mean 'tiny-coder'"):
        check_request(request_of(card, model="tiny-codr"), card)


def test_size_names_both_numbers(card: ModelCard) -> None:
    check_size(card.bounds.max_request_bytes, card)
    with pytest.raises(InvalidRequest, match="request is 10000000 bytes; allowed: at most 4194304 bytes"):
        check_size(10_000_000, card)


def test_messages_never_print_a_megabyte(card: ModelCard) -> None:
    request = request_of(card, TokenPrompt((10**4000,)), stop=("x" * 10**6,) * 50)
    with pytest.raises(InvalidRequest) as raised:
        check_request(request, card)
    assert len(str(raised.value)) < 4000
