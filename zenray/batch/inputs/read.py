"""The door of this room: an input's documents as a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zenray.batch.inputs.archive import read_archive
from zenray.batch.inputs.document import Documents, InputAccount
from zenray.batch.inputs.filesystem import local_path
from zenray.batch.inputs.folder import read_folder
from zenray.batch.inputs.git import read_git
from zenray.batch.inputs.spec import InputKind, InputSpec
from zenray.batch.inputs.stored_folder import read_stored_folder
from zenray.batch.inputs.table import read_jsonl, read_parquet


def read_documents(spec: InputSpec, account: InputAccount | None = None) -> Documents:
    """The documents of an input in an order that depends on it alone, one at a time in memory.

    `account` is told what was read and what was left out. Raises InputError where the input as a whole cannot be read.
    """
    account = account if account is not None else account_of(spec)
    for document in _READERS[spec.kind](spec, account):
        account.add(document)
        yield document


def account_of(spec: InputSpec) -> InputAccount:
    """An empty account for `read_documents`."""
    return InputAccount(spec.display_name, spec.kind.value)


def _read_any_folder(spec: InputSpec, account: InputAccount) -> Documents:
    is_local = local_path(spec.location) is not None
    return read_folder(spec, account) if is_local else read_stored_folder(spec, account)


_READERS: Mapping[InputKind, Callable[[InputSpec, InputAccount], Documents]] = {
    InputKind.FOLDER: _read_any_folder,
    InputKind.GIT: read_git,
    InputKind.ARCHIVE: read_archive,
    InputKind.JSONL: read_jsonl,
    InputKind.PARQUET: read_parquet,
}
