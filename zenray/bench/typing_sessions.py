"""Typing sessions: what happened in an editor, key by key, to be replayed against a server.

A session is a gzipped file of JSON lines. The first line says what it is:

    {"format": "zenray.typing/1", "name": ..., "source": ..., "license": ..., "seed": ...}

Every other line is an event at `time_ms` since the session began, in order of time:

    {"time_ms": 0, "open": PATH, "language": LSP id, "text": ...}            a document is opened, at version 1
    {"time_ms": 4120, "edit": PATH, "version": 7, "offset": 300, "remove": 0, "insert": "x"}
    {"time_ms": 9000, "move": PATH, "offset": 52}                            the cursor goes elsewhere

Offsets count code points. An edit takes `remove` code points away at `offset` and puts `insert` there; the cursor is
then behind it. Versions of a document count its edits, so an edit that is missing shows.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from zenray.errors import ConfigError

FORMAT = "zenray.typing/1"
MAX_TYPED_NEXT = 400
"""Characters a moment looks ahead: more than any completion it is compared with."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A document is opened, at version 1."""

    time_ms: int
    path: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Edited:
    """`remove` code points at `offset` make way for `insert`; the cursor is behind it."""

    time_ms: int
    path: str
    version: int
    offset: int
    remove: int
    insert: str

    @property
    def cursor(self) -> int:
        return self.offset + len(self.insert)

    def applied_to(self, text: str) -> str:
        return text[: self.offset] + self.insert + text[self.offset + self.remove :]


@dataclass(frozen=True, slots=True)
class Moved:
    """The cursor goes to another place, of this or another document."""

    time_ms: int
    path: str
    offset: int


Event = Opened | Edited | Moved


@dataclass(frozen=True, slots=True)
class TypingSession:
    """Events in order of time, and where the texts come from."""

    name: str
    source: str
    license: str
    seed: int
    events: tuple[Event, ...]

    @property
    def duration_ms(self) -> int:
        return self.events[-1].time_ms if self.events else 0

    def excerpt(self, start_ms: int, length_ms: int) -> TypingSession:
        """The events of a span, behind opened documents as they stood when it began."""
        documents: dict[str, Document] = {}
        kept: list[Event] = []
        for number, event in enumerate(self.events):
            if isinstance(event, Opened) or event.time_ms < start_ms:
                _apply(documents, event, f"{self.name}: event {number}")
            elif event.time_ms < start_ms + length_ms:
                time_ms = event.time_ms - start_ms
                if isinstance(event, Edited):
                    version = event.version - documents[event.path].version + 1
                    event = replace(event, version=version)
                kept.append(replace(event, time_ms=time_ms))
        opened = [Opened(0, each.path, each.language, each.text) for each in documents.values()]
        return replace(self, events=(*opened, *kept))


@dataclass(frozen=True, slots=True)
class Document:
    """An open document as it stands at a moment."""

    path: str
    language: str
    text: str
    version: int


@dataclass(frozen=True, slots=True)
class Moment:
    """The editor right after an edit: a completion is due."""

    edit: Edited
    document: Document
    others: tuple[Document, ...]
    """The other open documents, most recently used first."""
    quiet_ms: float | None
    """Until the next event, None behind the last."""
    typed_next: str
    """What the user then put at the cursor before leaving it, mistakes corrected; empty when what stood before the
    cursor was a mistake itself."""

    @property
    def prefix(self) -> str:
        return self.document.text[: self.edit.cursor]

    @property
    def suffix(self) -> str:
        return self.document.text[self.edit.cursor :]


def moments(session: TypingSession) -> Iterator[Moment]:
    """A moment per edit. Raises ConfigError where an edit does not fit its document."""
    documents: dict[str, Document] = {}  # the most recently used one last
    for number, event in enumerate(session.events):
        _apply(documents, event, f"{session.name}: event {number}")
        if isinstance(event, Edited):
            rest = session.events[number + 1 :]
            *others, document = documents.values()
            yield Moment(
                edit=event,
                document=document,
                others=tuple(reversed(others)),
                quiet_ms=rest[0].time_ms - event.time_ms if rest else None,
                typed_next=typed_next(event, rest),
            )


def typed_next(edit: Edited, rest: Sequence[Event]) -> str:
    """What the events after `edit` put behind its cursor until it leaves; see `Moment.typed_next`."""
    start, typed = edit.cursor, ""
    for event in rest:
        if not isinstance(event, Edited) or event.path != edit.path or len(typed) >= MAX_TYPED_NEXT:
            break
        if event.offset + event.remove != start + len(typed):
            break  # not where the cursor was: it left
        if event.offset < start:
            return ""
        typed = typed[: event.offset - start] + event.insert
    return typed[:MAX_TYPED_NEXT]


def _apply(documents: dict[str, Document], event: Event, where: str) -> None:
    """Keeps `documents` as the editor has them, the one just used last."""
    if isinstance(event, Opened):
        documents[event.path] = Document(event.path, event.language, event.text, 1)
        return
    document = documents.pop(event.path, None)
    if document is None:
        raise ConfigError(f"{where} is in {event.path!r}, which is not open")
    if not 0 <= event.offset <= len(document.text):
        raise ConfigError(f"{where} is at {event.offset} of {event.path}; allowed: 0 to {len(document.text)}")
    if isinstance(event, Edited):
        if event.version != document.version + 1:
            raise ConfigError(f"{where} makes version {event.version}; allowed: {document.version + 1}")
        if not 0 <= event.remove <= len(document.text) - event.offset:
            raise ConfigError(f"{where} removes {event.remove}; allowed: 0 to {len(document.text) - event.offset}")
        document = Document(document.path, document.language, event.applied_to(document.text), event.version)
    documents[event.path] = document


def write_session(session: TypingSession, path: Path) -> None:
    """The same session gives the same bytes."""
    head = {"format": FORMAT, "name": session.name, "source": session.source, "license": session.license}
    lines = [{**head, "seed": session.seed}, *map(_as_json, session.events)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as file:
        file.write(text.encode("utf-8"))
    path.write_bytes(buffer.getvalue())


def read_session(source: Path | bytes) -> TypingSession:
    """Raises ConfigError for a file that is not such a session, or whose events are out of order or do not fit."""
    data = source.read_bytes() if isinstance(source, Path) else source
    name = source.name if isinstance(source, Path) else "session"
    try:
        head, *lines = [json.loads(line) for line in gzip.decompress(data).decode("utf-8").splitlines()]
        if head["format"] != FORMAT:
            raise ConfigError(f"{name}: format is {head['format']!r}; allowed: {FORMAT}")
        events = tuple(map(_from_json, lines))
        session = TypingSession(head["name"], head["source"], head["license"], head["seed"], events)
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name} is not a typing session: {type(error).__name__}: {error}") from error
    times = [event.time_ms for event in events]
    if times != sorted(times):
        raise ConfigError(f"{name}: its events are not in order of time")
    for _ in moments(session):
        pass  # every edit fits
    return session


def recorded_sessions() -> list[TypingSession]:
    """Those that ship with zenray, by name."""
    folder = resources.files("zenray.bench").joinpath("data/typing")
    files = [file for file in folder.iterdir() if file.name.endswith(".jsonl.gz")]
    return [read_session(file.read_bytes()) for file in sorted(files, key=lambda file: file.name)]


def _as_json(event: Event) -> dict[str, Any]:
    at = {"time_ms": event.time_ms}
    if isinstance(event, Opened):
        return {**at, "open": event.path, "language": event.language, "text": event.text}
    if isinstance(event, Moved):
        return {**at, "move": event.path, "offset": event.offset}
    place = {"edit": event.path, "version": event.version, "offset": event.offset}
    return {**at, **place, "remove": event.remove, "insert": event.insert}


def _from_json(line: dict[str, Any]) -> Event:
    time_ms = int(line["time_ms"])
    if "open" in line:
        return Opened(time_ms, str(line["open"]), str(line["language"]), str(line["text"]))
    if "move" in line:
        return Moved(time_ms, str(line["move"]), int(line["offset"]))
    place = int(line["version"]), int(line["offset"]), int(line["remove"])
    return Edited(time_ms, str(line["edit"]), *place, str(line["insert"]))
