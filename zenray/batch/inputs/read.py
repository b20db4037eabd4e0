"""The door of this room: an input's documents as a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zenray.batch.inputs.document import Documents, InputAccount
from zenray.batch.inputs.folder import read_folder
from zenray.batch.inputs.spec import InputKind, InputSpec

_READERS: Mapping[InputKind, Callable[[InputSpec, InputAccount], Documents]] = {
    InputKind.FOLDER: read_folder,
}


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
