"""What inputs give: documents, and an account of what they left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from zenray.context.privacy import is_secret_file, redact
from zenray.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
"""Longer files are generated or data."""

_REDACTED = "secrets redacted"
_MAX_PATH_CHARS = 4096


class InputError(ConfigError):
    """An input cannot be read as a whole: it is missing, damaged or hostile.

    Messages end up in logs: what a URL says of who asks (its user, password and query) is left out of them.
    """

    def __init__(self, message: str) -> None:
        message = re.sub(r"://[^/@\s'\"]*@", "://", message)
        super().__init__(re.sub(r"(://[^\s'\"?]+)\?[^\s'\"]+", r"\1?…", message))


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A text and where it comes from. `path` is relative to the repository, with slashes. `revision` is a commit's id
    or a file's digest, empty where there is neither; `licence_file` the nearest LICENSE or COPYING upwards."""

    path: str
    text: str
    repository: str
    revision: str
    licence_file: str = ""


Documents = Iterator[SourceDocument]


@dataclass(slots=True)
class InputAccount:
    """What was read of one input, kept while it is read. `digest` speaks of the documents given so far, in order."""

    name: str
    kind: str
    revision: str = ""
    num_documents: int = 0
    num_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    _state: Any = field(default_factory=sha256, repr=False)

    def skip(self, reason: str) -> None:
        self.skipped[reason] += 1

    @property
    def num_passed_over(self) -> int:
        """What was seen and not read. A document without its secrets is read."""
        return self.skipped.total() - self.skipped[_REDACTED]

    def add(self, document: SourceDocument) -> None:
        self.num_documents += 1
        for part in (document.path, document.repository, document.revision, document.licence_file, document.text):
            data = part.encode()
            self._state.update(len(data).to_bytes(8, "little"))
            self._state.update(data)
        self.num_bytes += len(data)

    @property
    def digest(self) -> str:
        """SHA-256 over every document."""
        return str(self._state.hexdigest())

    def to_json(self) -> dict[str, Any]:
        """For `JobSpec.inputs`: nothing of it depends on where the input lies."""
        return {
            "name": self.name,
            "kind": self.kind,
            "revision": self.revision,
            "num_documents": self.num_documents,
            "num_bytes": self.num_bytes,
            "sha256": self.digest,
            "skipped": dict(sorted(self.skipped.items())),
        }


def text_of(data: bytes, account: InputAccount) -> str | None:
    """The text of a file with its secrets blotted out; None, and counted, where it is too large or no text."""
    if len(data) > MAX_FILE_BYTES:
        account.skip("larger than 1 MB")
        return None
    if b"\0" in data:
        account.skip("binary")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        account.skip("not UTF-8")
        return None
    return clean(text, account)


def clean(text: str, account: InputAccount) -> str | None:
    """`text` without secrets; None for a text that no file could hold."""
    if not text.strip():
        account.skip("empty")
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        account.skip("not UTF-8")
        return None
    shown = redact(text)
    if shown != text:
        account.skip(_REDACTED)
    return shown


def is_wanted(path: str, suffixes: tuple[str, ...], account: InputAccount) -> bool:
    """Whether a file is to be read, going by its path."""
    if suffixes and not path.endswith(suffixes):
        account.skip("other suffix")
        return False
    if is_secret_file(path):
        account.skip("file of secrets")
        return False
    return True


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, both relative to one root; an empty folder is the root."""
    folder = folder.strip("/")
    return folder in ("", ".") or path.startswith(f"{folder}/")


def safe_path(name: str) -> str | None:
    """A name out of an archive or a table as a relative path; None where it leads out of its root or is no name."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith("/") or len(name) > _MAX_PATH_CHARS:
        return None
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in name):
        return None
    return "/".join(parts)
