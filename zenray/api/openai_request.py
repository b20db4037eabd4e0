"""A JSON body in the shape of OpenAI's `POST /v1/completions` to domain requests.

Wrong types and values are InvalidRequest with the name the caller used, all at once. Absent and null mean
the same. Fields that would change the answer and that zenray does not have are refused when they ask for
something (`logit_bias`, `best_of`, ...); any other unknown field is ignored and reported in a header,
because OpenAI's clients send plenty that is harmless (`user`, `metadata`, `store`, ...).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from zenray.api.convert import default_limits, default_sampling
from zenray.api.service import ModelCard
from zenray.api.validate import Violations, check_model, collect_input, collect_limits, collect_sampling
from zenray.context.request import CompletionInput, CompletionRequest, Infill, TextPrompt, TokenPrompt
from zenray.engine.request import Limits, Priority, Sampling
from zenray.errors import FieldViolation, InvalidRequest

Silent = TypeVar("Silent", int, None)

_PRIORITIES = {"interactive": Priority.INTERACTIVE, "batch": Priority.BATCH}

_UNSUPPORTED: dict[str, Callable[[Any], bool]] = {
    "logit_bias": lambda value: value == {},
    "min_p": lambda value: value == 0,
    "min_tokens": lambda value: value == 0,
    "typical_p": lambda value: value == 1,
    "length_penalty": lambda value: value == 1,
    "use_beam_search": lambda value: value is False,
    "response_format": lambda value: value == {"type": "text"},
    "guided_json": lambda value: False,
    "guided_regex": lambda value: False,
    "guided_choice": lambda value: False,
    "guided_grammar": lambda value: False,
    "structured_outputs": lambda value: False,
    "grammar": lambda value: value == "",
}
"""Fields other servers have that change the answer, and the values that ask for nothing."""

_KNOWN = {
    *("model", "prompt", "suffix", "max_tokens", "temperature", "top_p", "n", "stream", "stream_options", "logprobs"),
    *("echo", "stop", "presence_penalty", "frequency_penalty", "best_of", "seed", "user"),
    *("top_k", "repetition_penalty", "max_lines", "deadline_ms", "priority", "stop_token_ids", "ignore_eos"),
    *_UNSUPPORTED,
}


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """One body: a request per prompt, which share everything but the prompt."""

    requests: tuple[CompletionRequest, ...]
    prompt_fields: tuple[str, ...]
    """The caller's name of each prompt: `prompt`, or `prompt[i]` of a list."""
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    ignored: tuple[str, ...] = ()


def decode(body: bytes, card: ModelCard, request_id: str) -> OpenAIRequest:
    """Raises InvalidRequest with every bad field, or NotFound for a model not served."""
    fields = _Fields(_parse(body))
    found = fields.found
    model = fields.text("model") or ""
    check_model(model, card)
    echo, stream = fields.flag("echo"), fields.flag("stream")
    sampling = _sampling(fields, card, echo)
    limits = _limits(fields, card)
    priority = fields.text("priority")
    if priority is not None and priority not in _PRIORITIES:
        found.add("priority", priority[:80], " or ".join(_PRIORITIES))
    options = fields.mapping("stream_options")
    prompts = _prompts(fields, card, echo)
    _refuse_unsupported(fields, sampling.n)
    translated = Violations()
    collect_sampling(sampling, card, translated)
    collect_limits(limits, card, translated)
    for field, given in prompts:
        at_input = Violations()
        collect_input(given, card, at_input)
        found.extend(renamed(at_input, field))
    found.extend(renamed(translated, "prompt"))
    found.raise_if_any()
    return OpenAIRequest(
        requests=tuple(
            CompletionRequest(
                request_id=request_id if len(prompts) == 1 else f"{request_id}-{i}",
                input=given,
                model=model,
                sampling=sampling,
                limits=limits,
                priority=_PRIORITIES[priority or "interactive"],
            )
            for i, (_, given) in enumerate(prompts)
        ),
        prompt_fields=tuple(field for field, _ in prompts),
        stream=stream,
        include_usage=options.get("include_usage") is True,
        echo=echo,
        ignored=tuple(sorted(fields.data.keys() - _KNOWN)),
    )


def renamed(violations: Iterable[FieldViolation], prompt_field: str) -> list[FieldViolation]:
    """Violations with the names a caller of this door used."""
    prompt_names = {
        "prompt": prompt_field,
        "prompt_token_ids": prompt_field,
        "infill": prompt_field,
        "infill.prefix": prompt_field,
        "infill.suffix": "suffix",
    }
    out = []
    for violation in violations:
        head, bracket, index = violation.field.partition("[")
        head = prompt_names.get(head, head.removeprefix("sampling.").removeprefix("limits."))
        out.append(FieldViolation(f"{head}{bracket}{index}", violation.value, violation.allowed))
    return out


def _parse(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest.of("body", body[error.start : error.start + 8], "JSON in UTF-8") from error
    except RecursionError as error:
        raise InvalidRequest.of("body", "a deeply nested value", "a JSON object") from error
    except ValueError as error:  # JSONDecodeError, and an integer of more digits than Python reads.
        raise InvalidRequest.of("body", str(error)[:80], "a JSON object") from error
    if not isinstance(data, dict):
        raise InvalidRequest.of("body", type(data).__name__, "a JSON object")
    return data


def _sampling(fields: _Fields, card: ModelCard, echo: bool) -> Sampling:
    silent = default_sampling(card)
    logprobs = fields.whole("logprobs", None)
    return Sampling(
        temperature=fields.real("temperature", silent.temperature),
        top_k=_top_k(fields, silent.top_k),
        top_p=fields.real("top_p", silent.top_p),
        repetition_penalty=fields.real("repetition_penalty", silent.repetition_penalty),
        presence_penalty=fields.real("presence_penalty", silent.presence_penalty),
        frequency_penalty=fields.real("frequency_penalty", silent.frequency_penalty),
        seed=fields.whole("seed", None),
        n=fields.whole("n", silent.n),
        logprobs=logprobs,
        prompt_logprobs=echo and logprobs is not None,
    )


def _top_k(fields: _Fields, silent: int) -> int:
    """vLLM and transformers write -1 for what is 0 here: keep every token."""
    top_k = fields.whole("top_k", silent)
    return 0 if top_k == -1 else top_k


def _limits(fields: _Fields, card: ModelCard) -> Limits:
    silent = default_limits(card)
    return Limits(
        max_tokens=fields.whole("max_tokens", silent.max_tokens),
        max_lines=fields.whole("max_lines", silent.max_lines),
        stop=fields.strings("stop"),
        stop_token_ids=fields.wholes("stop_token_ids"),
        deadline_ms=fields.whole("deadline_ms", card.defaults.deadline_ms),
        ignore_eos=fields.flag("ignore_eos"),
    )


def _prompts(fields: _Fields, card: ModelCard, echo: bool) -> list[tuple[str, CompletionInput]]:
    """Each prompt with the caller's name for it."""
    found = fields.found
    prompt, suffix = fields.data.get("prompt"), fields.text("suffix")
    if suffix and echo:
        found.add("echo", True, "false with a suffix")
    given: list[tuple[str, Any]] = [("prompt", prompt)]
    if isinstance(prompt, list) and not _is_token_ids(prompt):
        given = [(f"prompt[{i}]", item) for i, item in enumerate(prompt[: card.bounds.max_prompts])]
        if not 1 <= len(prompt) <= card.bounds.max_prompts:
            found.add("prompt", f"a list of {len(prompt)}", f"1 to {card.bounds.max_prompts} prompts")
    prompts: list[tuple[str, CompletionInput]] = []
    for field, item in given:
        if isinstance(item, str):
            infill = suffix is not None and not echo
            prompts.append((field, Infill(item, suffix or "") if infill else TextPrompt(item)))
        elif isinstance(item, list) and _is_token_ids(item):
            if suffix:
                found.add("suffix", suffix[:80], "nothing with a prompt of token ids")
            prompts.append((field, TokenPrompt(tuple(item))))
        else:
            found.add(field, _shown(item), "a string or a list of token ids, or a list of either")
    if len({type(given) for _, given in prompts}) > 1:
        found.add("prompt", "strings and token ids in one list", "a list of one kind")
    return prompts


def _is_token_ids(value: list[Any]) -> bool:
    return bool(value) and all(type(item) is int for item in value)


def _refuse_unsupported(fields: _Fields, n: int) -> None:
    best_of = fields.whole("best_of", None)
    if best_of is not None and best_of != n:
        fields.found.add("best_of", best_of, f"n, which is {n}: choices are not ranked")
    for name, asks_nothing in _UNSUPPORTED.items():
        value = fields.data.get(name)
        if value is not None and not asks_nothing(value):
            fields.found.add(name, _shown(value), "nothing: this server does not support it")


class _Fields:
    """Typed access to a JSON object; wrong types are collected and read as the default."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.found = Violations()

    def text(self, name: str) -> str | None:
        value = self.data.get(name)
        if value is None or isinstance(value, str):
            return value
        self.found.add(name, _shown(value), "a string")
        return None

    def flag(self, name: str) -> bool:
        value = self.data.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.found.add(name, _shown(value), "true or false")
        return False

    def real(self, name: str, silent: float) -> float:
        value = self.data.get(name)
        if value is None:
            return silent
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                return float("inf")
        self.found.add(name, _shown(value), "a number")
        return silent

    def whole(self, name: str, silent: Silent) -> int | Silent:
        """An integer; 16.0 is one, as JSON has only numbers."""
        value = self.data.get(name)
        if value is None:
            return silent
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if type(value) is int:
            return value
        self.found.add(name, _shown(value), "an integer")
        return silent

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.data.get(name)
        if value is None or isinstance(value, dict):
            return value or {}
        self.found.add(name, _shown(value), "an object")
        return {}

    def strings(self, name: str) -> tuple[str, ...]:
        """A string or a list of strings."""
        value = self.data.get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list):
            for i, item in enumerate(value):
                if not isinstance(item, str):
                    self.found.add(f"{name}[{i}]", _shown(item), "a string")
                    return ()
            return tuple(value)
        self.found.add(name, _shown(value), "a string or a list of strings")
        return ()

    def wholes(self, name: str) -> tuple[int, ...]:
        """A list of integers."""
        value = self.data.get(name)
        if value is None:
            return ()
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
        self.found.add(name, _shown(value), "a list of integers")
        return ()


def _shown(value: Any) -> Any:
    """A value short enough to print: never the repr of a megabyte."""
    if isinstance(value, str):
        return value[:80]
    if isinstance(value, list | dict):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return value
