"""A job's options on the command line, made of its settings: names, types, defaults and descriptions are theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer
from annotated_types import Ge, Interval, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from zenray.config import Settings
from zenray.errors import FieldViolation, InvalidRequest

PANEL = "What the job does (all of it decides the output's bytes)"
FieldPath = tuple[str, ...]


def with_options(command: Callable[..., None], settings: type[Settings]) -> Callable[..., None]:
    """`command` with an option for each field of `settings` behind its own; it is called with a `settings` instance
    as its keyword `settings`. Fields of nested sections get options by their own names, in a panel of the section."""
    fields = {_parameter(path): (path, panel, each) for path, panel, each in _leaves(settings)}
    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "settings"]

    def run(**values: Any) -> None:
        given = {name: values.pop(name) for name in fields}
        command(**values, settings=_build(settings, {fields[name][0]: value for name, value in given.items()}))

    options = [_option(name, panel, each) for name, (_, panel, each) in fields.items()]
    parameters = [*own, *options]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = command.__doc__
    return run


def as_arguments(settings: Settings) -> list[str]:
    """The options that make `settings` again, those with their default left out."""
    words = []
    for path, _, info in _leaves(type(settings)):
        value: Any = settings
        for part in path:
            value = getattr(value, part)
        if value == info.get_default(call_default_factory=True):
            continue
        name = _parameter(path).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}={each.value if isinstance(each, Enum) else each}" for each in _several(value)]
    return words


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _leaves(
    model: type[BaseModel], path: FieldPath = (), panel: str = PANEL
) -> Iterator[tuple[FieldPath, str, FieldInfo]]:
    """Fields that are no sections, with their path and the title of their panel."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, (*path, name), f"{name.replace('_', ' ').capitalize()}: {_summary(kind, info)}")
        else:
            yield (*path, name), panel, info


def _summary(kind: type[BaseModel], info: FieldInfo) -> str:
    text = info.description or inspect.getdoc(kind) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def _parameter(path: FieldPath) -> str:
    return path[-1]


def _option(name: str, panel: str, info: FieldInfo) -> inspect.Parameter:
    kind, is_list = _kind(info.annotation)
    default = info.get_default(call_default_factory=True)
    low, high = _bounds(info)
    option = typer.Option(
        "--" + name.replace("_", "-") + (f"/--no-{name.replace('_', '-')}" if kind is bool else ""),
        help=info.description,
        min=low,
        max=high,
        rich_help_panel=panel,
        show_default=default not in (None, (), ""),
    )
    annotation: Any = list[kind] | None if is_list else (kind | None if default is None else kind)  # type: ignore[valid-type]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=list(default) if is_list and default else default,
        annotation=Annotated[annotation, option],
    )


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The type of a value on the command line, and whether there may be several."""
    arguments = [each for each in get_args(annotation) if each not in (NoneType, Ellipsis)]
    if get_origin(annotation) in (tuple, list):
        return arguments[0], True
    if NoneType in get_args(annotation):
        return _kind(arguments[0]) if len(arguments) == 1 else (str, False)
    return annotation, False


def _bounds(info: FieldInfo) -> tuple[float | None, float | None]:
    """The least and the most a number may be, as far as its field says."""
    low = [each.ge for each in info.metadata if isinstance(each, Ge | Interval) and each.ge is not None]
    high = [each.le for each in info.metadata if isinstance(each, Le | Interval) and each.le is not None]
    return (low[0] if low else None), (high[0] if high else None)  # type: ignore[return-value]


def _build(settings: type[Settings], values: Mapping[FieldPath, Any]) -> Settings:
    """Raises InvalidRequest naming each wrong option, its value and what is allowed."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        part = tree
        for name in path[:-1]:
            part = part.setdefault(name, {})
        part[path[-1]] = tuple(value) if isinstance(value, list) else value
    try:
        return settings.model_validate(tree)
    except ValidationError as error:
        raise InvalidRequest([_violation(problem) for problem in error.errors(include_url=False)]) from error


def _violation(problem: Any) -> FieldViolation:
    path = tuple(str(part) for part in problem["loc"])
    name = "--" + _parameter(path).replace("_", "-") if path else "the options"
    allowed = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return FieldViolation(name, problem["input"], allowed)
