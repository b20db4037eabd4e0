"""Build a `ZenrayConfig`: a profile, overlaid by a file, overlaid by `--set key=value`.

Every value remembers where it was written, so that an error names the file and line, or the option.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from zenray.config import ZenrayConfig
from zenray.errors import ConfigError, FieldViolation, NotFound

DEFAULT_PROFILE = "local"
Origins = dict[tuple[str, ...], str]
"""Dotted path, as a tuple -> where its value was written."""


def profile_names() -> list[str]:
    """The profiles shipped in the package, sorted."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def profile_text(name: str) -> str:
    """A profile as it is written. Raises NotFound with the nearest name."""
    if name not in profile_names():
        raise NotFound("profile", name, profile_names())
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def load_config(
    profile: str = DEFAULT_PROFILE, file: Path | None = None, overrides: Sequence[str] = ()
) -> ZenrayConfig:
    """Profile <- file <- overrides (`server.grpc_port=9100`; the value is read as YAML).

    Raises:
        NotFound: no such profile.
        ConfigError: one line per wrong key or value: what it is, what is allowed, where it stands.
    """
    return resolve_config(profile, file, overrides)[0]


def resolve_config(
    profile: str = DEFAULT_PROFILE, file: Path | None = None, overrides: Sequence[str] = ()
) -> tuple[ZenrayConfig, Origins]:
    """As `load_config`, and where each value that is not a default was written."""
    values: dict[str, Any] = {}
    origins: Origins = {}
    _overlay(values, origins, *_parse(profile_text(profile), f"profile {profile}"))
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"{file} cannot be read: {reason}") from error
        _overlay(values, origins, *_parse(text, str(file)))
    for override in overrides:
        _overlay(values, origins, *_parse_override(override))
    try:
        return ZenrayConfig.model_validate(values), origins
    except ValidationError as error:
        raise ConfigError(_describe(error, values, origins)) from error


def _folder() -> Traversable:
    return resources.files("zenray") / "profiles"


def _parse(text: str, source: str) -> tuple[dict[str, Any], Origins]:
    """A YAML mapping and the line of every key. `source` names it in errors."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode) or not isinstance(value, dict):
        raise ConfigError(f"{source}:{node.start_mark.line + 1}: expected sections such as `model:`, found {value!r}")
    origins: Origins = {}
    for path, line in _walk(node, (), source):
        origins[path] = f"{source}:{line}"
    return value, origins


def _walk(node: yaml.MappingNode, path: tuple[str, ...], source: str) -> Iterator[tuple[tuple[str, ...], int]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen:
            raise ConfigError(f"{source}:{line}: {'.'.join((*path, key))} is given twice; first on line {seen[key]}")
        seen[key] = line
        yield (*path, key), line
        if isinstance(value_node, yaml.MappingNode):
            yield from _walk(value_node, (*path, key), source)


def _parse_override(override: str) -> tuple[dict[str, Any], Origins]:
    dotted, equals, text = override.partition("=")
    path = tuple(part.strip() for part in dotted.split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as --set server.grpc_port=9100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from error
    tree: Any = value
    for part in reversed(path):
        tree = {part: tree}
    return tree, {path[: depth + 1]: f"--set {dotted}" for depth in range(len(path))}


def _overlay(values: dict[str, Any], origins: Origins, new: Mapping[str, Any], new_origins: Origins) -> None:
    """Merge sections; replace anything else."""
    for key, value in new.items():
        old = values.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _overlay(old, {}, value, {})
        elif isinstance(old, dict) and value is None:
            continue  # an empty section, its keys all commented out
        else:
            values[key] = value
    origins.update(new_origins)


def _describe(error: ValidationError, values: Mapping[str, Any], origins: Origins) -> str:
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        path = tuple(str(part) for part in problem["loc"])
        dotted = ".".join(path)
        if not path:  # sections that do not go together
            line = problem["msg"].removeprefix("Value error, ")
        elif problem["type"] == "extra_forbidden":
            line = f"unknown key {dotted}; {_suggestion(path)}"
        elif problem["type"] == "missing":
            line = f"{dotted} is missing; allowed: {_allowed(path)}"
        else:
            line = str(FieldViolation(dotted, problem["input"], _allowed(path) or problem["msg"]))
        origin = _origin(path, origins)
        lines.append(f"{line} ({origin})" if origin else line)
    return "\n".join(lines)


def _origin(path: tuple[str, ...], origins: Origins) -> str:
    while path:
        if path in origins:
            return origins[path]
        path = path[:-1]
    return ""


def _suggestion(path: tuple[str, ...]) -> str:
    """The nearest right key: in the same section, else anywhere in the tree."""
    section = _model_at(path[:-1])
    siblings = list(section.model_fields) if section else []
    near = difflib.get_close_matches(path[-1], siblings, n=1)
    if near:
        return f"did you mean {'.'.join((*path[:-1], near[0]))}?"
    everywhere = [".".join(known) for known in _all_paths(ZenrayConfig, ())]
    elsewhere = [known for known in everywhere if known.rpartition(".")[2] == path[-1]]
    elsewhere = elsewhere or difflib.get_close_matches(".".join(path), everywhere, n=1)
    if not elsewhere:
        by_last = {known.rpartition(".")[2]: known for known in everywhere}
        elsewhere = [by_last[last] for last in difflib.get_close_matches(path[-1], by_last, n=1, cutoff=0.75)]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    where = f"in {'.'.join(path[:-1])}" if path[:-1] else "at the top"
    return f"known {where}: {', '.join(siblings)}"


def _all_paths(model: type[BaseModel], base: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*base, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _all_paths(field.annotation, (*base, name))


def _model_at(path: tuple[str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = ZenrayConfig
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return None
        model = field.annotation
    return model


def _allowed(path: tuple[str, ...]) -> str:
    """What a key takes, in words, from its type and bounds."""
    section = _model_at(path[:-1])
    if section is None or path[-1] not in section.model_fields:
        # An entry of a dictionary or list: describe the values of the field that holds it.
        parent = _model_at(path[:-2]) if len(path) > 1 else None
        field = parent.model_fields.get(path[-2]) if parent else None
        inner = get_args(field.annotation) if field and get_origin(field.annotation) in (dict, list, tuple) else ()
        inner = tuple(kind for kind in inner if kind is not Ellipsis)
        return _in_words(TypeAdapter(inner[-1]).json_schema()) if inner else ""
    field = section.model_fields[path[-1]]
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return f"a section with the keys {', '.join(field.annotation.model_fields)}"
    return _in_words(section.model_json_schema()["properties"][path[-1]])


def _in_words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_in_words(option) for option in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kind = schema.get("type")
    words = {
        "integer": "an integer",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "null": "null",
        "array": "a list",
        "object": "a mapping",
    }.get(str(kind), str(kind))
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    if kind == "object" and "additionalProperties" in schema:
        return (
            f"{words} of names to {_in_words(schema['additionalProperties']).removeprefix('an ').removeprefix('a ')}s"
        )
    if above is not None:
        words += f" above {above:g}" + (f" up to {high:g}" if high is not None else "")
    elif low is not None and high is not None:
        words += f" from {low:g} to {high:g}" if kind == "number" else f" from {low} to {high}"
    elif low is not None:
        words += f", at least {low:g}" if kind == "number" else f", at least {low}"
    return words
