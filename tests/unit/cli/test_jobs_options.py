"""A job's settings on the command line: whatever they are, the options that were made of them make them again."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typer.testing import CliRunner

from zenray.cli.jobs_options import as_arguments, with_options
from zenray.config import Settings
from zenray.errors import InvalidRequest


class Style(Enum):
    PLAIN = "plain"
    FANCY = "fancy"


class Inner(Settings):
    """How it tastes."""

    sweetness: float = Field(0.5, ge=0, le=1, description="From none to all.")
    nuts: bool = True
    spices: tuple[str, ...] = ("clove",)


class Outer(Settings):
    """The options of a cake."""

    layers: int | None = Field(None, ge=1, description="None for as many as there is dough.")
    style: Style = Style.PLAIN
    shape: Literal["round", "square"] = "round"
    inner: Inner = Field(default_factory=Inner)


def parse(arguments: list[str]) -> Outer:
    seen: list[Any] = []

    def bake(settings: Any, oven: int = 1) -> None:
        seen.append(settings)

    app = typer.Typer()
    app.command()(with_options(bake, Outer))
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return seen[0]


spices = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
settings = st.builds(
    Outer,
    layers=st.none() | st.integers(1, 99),
    style=st.sampled_from(Style),
    shape=st.sampled_from(["round", "square"]),
    inner=st.builds(
        Inner, sweetness=st.floats(0, 1), nuts=st.booleans(), spices=st.lists(spices, min_size=1).map(tuple)
    ),
)


@given(settings)
def test_options_make_the_settings_again(made: Outer) -> None:
    assert parse(as_arguments(made)) == made


def test_defaults_need_no_options() -> None:
    assert as_arguments(Outer()) == []
    assert parse([]) == Outer()


def test_a_value_that_the_settings_refuse_is_named_as_it_was_typed() -> None:
    class Odd(Settings):
        amount: float = Field(1.0, gt=0)

    app = typer.Typer()
    app.command()(with_options(lambda settings: None, Odd))
    error = CliRunner().invoke(app, ["--amount", "0"]).exception
    assert isinstance(error, InvalidRequest)
    assert str(error) == "--amount is 0.0; allowed: greater than 0"


@pytest.mark.parametrize(
    "text", ["From none to all.", "[default: 0.5]", "0<=x<=1", "Inner: How it tastes", "--no-nuts"]
)
def test_help_has_what_the_settings_say(text: str) -> None:
    app = typer.Typer()
    app.command()(with_options(lambda settings: None, Outer))
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "160", "TERM": "dumb"}).output
    assert text in " ".join(shown.split())
