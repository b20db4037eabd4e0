"""Every bound of a request, checked once at the edge: pure, and all violations at once.

Field names are those of `zenray.v1.CompleteRequest`; a door with other names translates them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from zenray.api.service import ModelCard
from zenray.context.pieces import Snippet
from zenray.context.request import (
    CompletionInput,
    CompletionRequest,
    EditorState,
    Infill,
    TextPrompt,
    TokenPrompt,
    TrackedEditor,
)
from zenray.engine.request import Limits, Sampling
from zenray.errors import FieldViolation, InvalidRequest, NotFound, Quantity

MAX_SEED = 2**63 - 1
MAX_TOP_K = 2**31 - 1
MAX_LINES = 2**31 - 1
MAX_STOP_TOKEN_IDS = 64
MAX_ID_LENGTH = 128
"""Characters of request and session ids: they stand in logs and traces."""
MAX_LANGUAGE_LENGTH = 64
MAX_PATH_LENGTH = 4096
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATOR = re.compile(r"[/\\]")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Violations:
    """Collects bad fields, so that a caller learns of all of them at once."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, value: object, allowed: str) -> None:
        self._found.append(FieldViolation(field, value, allowed))

    def extend(self, violations: Iterable[FieldViolation]) -> None:
        self._found.extend(violations)

    def __iter__(self) -> Iterator[FieldViolation]:
        return iter(self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self) -> None:
        """Raises InvalidRequest naming every field added so far."""
        if self._found:
            raise InvalidRequest(self._found)


def check_request(request: CompletionRequest, card: ModelCard) -> None:
    """Raises NotFound for a model not served, else InvalidRequest naming every bad field."""
    found = Violations()
    collect(request, card, found)
    found.raise_if_any()


def collect(request: CompletionRequest, card: ModelCard, found: Violations) -> None:
    """Adds every violation of `request` to `found`; raises NotFound for a model not served."""
    check_model(request.model, card)
    check_id("request_id", request.request_id, found)
    check_id("session_id", request.session_id, found)
    if isinstance(request.input, TrackedEditor) and not request.session_id:
        found.add("session_id", "", "the session whose document editor.tracked names")
    collect_input(request.input, card, found)
    _collect_snippets(request.snippets, request.input, card, found)
    collect_sampling(request.sampling, card, found)
    collect_limits(request.limits, card, found)


def check_id(field: str, value: str, found: Violations, *, required: bool = False) -> None:
    """Adds a violation for an id that is too long, unprintable, or missing where it is required."""
    if len(value) > MAX_ID_LENGTH or not value.isprintable() or (required and not value):
        least = "1 to" if required else "at most"
        found.add(field, value[:80], f"{least} {MAX_ID_LENGTH} printable characters")


def check_path(field: str, path: str, found: Violations) -> None:
    """Adds a violation unless `path` names a place within the workspace."""
    if not 0 < len(path) <= MAX_PATH_LENGTH:
        found.add(field, path[:80], f"1 to {MAX_PATH_LENGTH} characters")
    elif _ABSOLUTE.match(path) or ".." in _SEPARATOR.split(path):
        found.add(field, path[:80], 'relative to the workspace, without ".."')
    elif _CONTROL.search(path):
        found.add(field, path[:80], "no control characters")
    else:
        check_text(field, path, found)


def check_language(field: str, language: str, found: Violations) -> None:
    """Adds a violation for what cannot be an LSP language id; an unknown one is fine."""
    if len(language) > MAX_LANGUAGE_LENGTH or not language.isprintable():
        found.add(field, language[:80], f"at most {MAX_LANGUAGE_LENGTH} printable characters")


def check_hash(field: str, content_hash: str, found: Violations) -> None:
    """Adds a violation unless the hash is absent or well-formed."""
    if content_hash and not _SHA256.fullmatch(content_hash):
        found.add(field, content_hash[:80], "empty, or SHA-256 as 64 lower-case hex digits")


def check_model(name: str, card: ModelCard) -> None:
    """Raises NotFound unless `name` is empty or the served model."""
    if name not in ("", card.name):
        raise NotFound("model", name[:256], [card.name])


def check_size(num_bytes: int, card: ModelCard) -> None:
    """Raises InvalidRequest for a request of more bytes than the server reads."""
    if num_bytes > card.bounds.max_request_bytes:
        raise too_large(num_bytes, card.bounds.max_request_bytes)


def too_large(num_bytes: int, max_request_bytes: int) -> InvalidRequest:
    """The error of a request with too many bytes."""
    return InvalidRequest.of("request", Quantity(num_bytes, "bytes"), f"at most {max_request_bytes} bytes")


def check_text(field: str, text: str, found: Violations) -> None:
    """Adds a violation when `text` cannot be UTF-8: it holds half of a surrogate pair."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found.add(field, text[error.start], f"valid Unicode; character {error.start} is a lone surrogate")


def collect_input(given: CompletionInput, card: ModelCard, found: Violations) -> None:
    """Adds what is wrong with the text or the token ids to continue."""
    if isinstance(given, TextPrompt):
        if not given.text:
            found.add("prompt", "", "at least one character")
        check_text("prompt", given.text, found)
    elif isinstance(given, TokenPrompt):
        if not given.token_ids:
            found.add("prompt_token_ids", [], "at least one token id")
        _check_token_ids("prompt_token_ids", given.token_ids, card, found)
    elif isinstance(given, Infill):
        if not given.prefix and not given.suffix:
            found.add("infill", "", "text before or after the place to fill")
        check_text("infill.prefix", given.prefix, found)
        check_text("infill.suffix", given.suffix, found)
    elif isinstance(given, TrackedEditor):
        check_path("editor.path", given.path, found)
        check_language("editor.language", given.language, found)
        check_hash("editor.tracked.content_hash", given.content_hash, found)
    else:
        assert isinstance(given, EditorState)
        if len(given.path) > MAX_PATH_LENGTH:
            found.add("editor.path", given.path[:80], f"at most {MAX_PATH_LENGTH} characters")
        elif _CONTROL.search(given.path):
            found.add("editor.path", given.path[:80], "no control characters")
        check_text("editor.path", given.path, found)
        check_text("editor.text", given.text, found)
        check_language("editor.language", given.language, found)


def _collect_snippets(snippets: Sequence[Snippet], given: CompletionInput, card: ModelCard, found: Violations) -> None:
    if not snippets:
        return
    bounds = card.bounds
    if not isinstance(given, EditorState | TrackedEditor):
        found.add("snippets", Quantity(len(snippets), "snippets"), "none: only an editor's request takes them")
        return
    if len(snippets) > bounds.max_snippets:
        found.add("snippets", Quantity(len(snippets), "snippets"), f"at most {bounds.max_snippets} snippets")
        return
    for i, snippet in enumerate(snippets):
        check_text(f"snippets[{i}].text", snippet.text, found)
        if snippet.path:
            check_path(f"snippets[{i}].path", snippet.path, found)
        _whole(f"snippets[{i}].start_line", snippet.start_line, 0, MAX_LINES, found)
    num_bytes = sum(len(snippet.text.encode("utf-8", "surrogatepass")) for snippet in snippets)
    if num_bytes > bounds.max_snippet_bytes:
        found.add("snippets", Quantity(num_bytes, "bytes"), f"at most {bounds.max_snippet_bytes} bytes in all")


def collect_sampling(sampling: Sampling, card: ModelCard, found: Violations) -> None:
    """Adds every sampling field out of its range."""
    bounds = card.bounds
    collect_choice(sampling, found)
    _whole("sampling.n", sampling.n, 1, bounds.max_n, found)
    if sampling.seed is not None:
        _whole("sampling.seed", sampling.seed, 0, MAX_SEED, found)
    if sampling.logprobs is not None:
        _whole("sampling.logprobs", sampling.logprobs, 0, bounds.max_logprobs, found)


def collect_choice(sampling: Sampling, found: Violations) -> None:
    """Adds every field out of its range of those that the choice of a token depends on."""
    _real("temperature", sampling.temperature, 0, 10, found)
    _real("top_p", sampling.top_p, 0, 1, found, above=True)
    _real("repetition_penalty", sampling.repetition_penalty, 0, 10, found, above=True)
    _real("presence_penalty", sampling.presence_penalty, -2, 2, found)
    _real("frequency_penalty", sampling.frequency_penalty, -2, 2, found)
    _whole("sampling.top_k", sampling.top_k, 0, MAX_TOP_K, found)


def collect_limits(limits: Limits, card: ModelCard, found: Violations) -> None:
    """Adds every limit out of its range."""
    bounds = card.bounds
    _whole("limits.max_tokens", limits.max_tokens, 0, bounds.max_tokens, found)
    _whole("limits.max_lines", limits.max_lines, 0, MAX_LINES, found)
    if limits.deadline_ms is not None:
        _whole("limits.deadline_ms", limits.deadline_ms, 1, bounds.max_deadline_ms, found)
    if len(limits.stop) > bounds.max_stop:
        found.add("limits.stop", Quantity(len(limits.stop), "strings"), f"at most {bounds.max_stop} strings")
    for i, stop in enumerate(limits.stop[: bounds.max_stop]):
        field = f"limits.stop[{i}]"
        if not stop:
            found.add(field, "", "at least one character")
        elif len(stop) > bounds.max_stop_length:
            found.add(field, stop[:80], f"at most {bounds.max_stop_length} characters")
        check_text(field, stop, found)
    if len(limits.stop_token_ids) > MAX_STOP_TOKEN_IDS:
        number = Quantity(len(limits.stop_token_ids), "ids")
        found.add("limits.stop_token_ids", number, f"at most {MAX_STOP_TOKEN_IDS} ids")
    _check_token_ids("limits.stop_token_ids", limits.stop_token_ids[:MAX_STOP_TOKEN_IDS], card, found)


def _real(name: str, value: float, least: float, most: float, found: Violations, *, above: bool = False) -> None:
    """A finite number in [least, most], or in (least, most] with `above`."""
    within = least < value <= most if above else least <= value <= most
    if not (math.isfinite(value) and within):
        low = f"above {least}" if above else f"{least}"
        found.add(f"sampling.{name}", value, f"a number from {low} to {most}")


def _whole(field: str, value: int, least: int, most: int, found: Violations) -> None:
    if not least <= value <= most:
        found.add(field, value, f"{least} to {most}")


def _check_token_ids(field: str, ids: Iterable[int], card: ModelCard, found: Violations) -> None:
    ids = tuple(ids)
    if not ids or (min(ids) >= 0 and max(ids) < card.vocab_size):
        return
    i, bad = next((i, token_id) for i, token_id in enumerate(ids) if not 0 <= token_id < card.vocab_size)
    found.add(f"{field}[{i}]", bad, f"0 to {card.vocab_size - 1}, the model's vocabulary")
