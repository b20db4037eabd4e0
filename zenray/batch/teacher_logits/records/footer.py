"""What a file of records says of itself, so that it can be read without anything beside it: Parquet's key-value
metadata."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from zenray.batch.rows import canonical_json
from zenray.batch.teacher_logits.records.format import RecordFormat
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.errors import InvalidRequest, OutputDamaged

VERSION = 1
"""Raised whenever the same bytes would mean other records."""

_VERSION = b"zenray.records.version"
_FORMAT, _VOCABULARY, _TEACHER = b"zenray.records.format", b"zenray.records.vocabulary", b"zenray.records.teacher"
_TOKENIZER, _CODE, _HIDDEN = b"zenray.records.tokenizer", b"zenray.records.code", b"zenray.records.hidden_layers"


@dataclass(frozen=True, slots=True)
class Footer:
    """How to read the records, and where they come from.

    teacher: the model's name, SHA-256 and weight format, whatever tells teachers apart. tokenizer_sha256: of what
    the token ids mean. code_sha256: of the code that made the records. hidden_layers: those in the companion table.
    """

    record_format: RecordFormat
    vocabulary: Vocabulary
    teacher: Mapping[str, str]
    tokenizer_sha256: str
    code_sha256: str
    hidden_layers: tuple[int, ...] = ()

    def to_metadata(self) -> dict[bytes, bytes]:
        """ASCII only: readers in other languages take these values for text."""
        return {
            _VERSION: str(VERSION).encode(),
            _FORMAT: self.record_format.name.encode(),
            _VOCABULARY: b64encode(self.vocabulary.to_bytes()),
            _TEACHER: canonical_json(self.teacher).encode(),
            _TOKENIZER: self.tokenizer_sha256.encode(),
            _CODE: self.code_sha256.encode(),
            _HIDDEN: canonical_json(list(self.hidden_layers)).encode(),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> Footer:
        """Raises OutputDamaged for what no `to_metadata` gives."""
        try:
            found = metadata or {}
            if found[_VERSION] != str(VERSION).encode():
                raise ValueError(f"they are of version {found[_VERSION].decode()}, this release reads {VERSION}")
            teacher, layers = json.loads(found[_TEACHER]), json.loads(found[_HIDDEN])
            footer = cls(
                record_format=parse_format(found[_FORMAT].decode()),
                vocabulary=Vocabulary.from_bytes(b64decode(found[_VOCABULARY], validate=True)),
                teacher=teacher,
                tokenizer_sha256=found[_TOKENIZER].decode(),
                code_sha256=found[_CODE].decode(),
                hidden_layers=tuple(layers),
            )
            if not isinstance(teacher, dict) or not all(type(each) is int and each >= 0 for each in layers):
                raise ValueError("its teacher or its hidden layers are none")
            return footer
        except KeyError as error:
            raise OutputDamaged(f"no file of records: its footer has no {error.args[0].decode()}") from error
        except (ValueError, TypeError, InvalidRequest) as error:
            raise OutputDamaged(f"a footer that records do not have: {error}") from error
