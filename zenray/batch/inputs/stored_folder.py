"""Files below a URL, such as s3://bucket/sources: what lies there was put there, so no rules of git hold."""

from __future__ import annotations

from zenray.batch.inputs.document import (
    MAX_FILE_BYTES,
    Documents,
    InputAccount,
    SourceDocument,
    is_below,
    is_wanted,
    safe_path,
    text_of,
)
from zenray.batch.inputs.filesystem import files_below, filesystem_of, joined, reading
from zenray.batch.inputs.licence import Licences
from zenray.batch.inputs.spec import InputSpec


def read_stored_folder(spec: InputSpec, account: InputAccount) -> Documents:
    """Documents in the order of their paths."""
    filesystem, root = filesystem_of(spec.location)
    with reading(spec.location):
        paths = [path for path in files_below(filesystem, root) if path]
    licences = Licences(paths)
    for path in paths:
        if not is_below(path, spec.subdirectory) or not is_wanted(path, spec.suffixes, account):
            continue
        if safe_path(path) != path:
            account.skip("unsafe path")
            continue
        with reading(spec.location), filesystem.open_input_stream(joined(root, path), compression=None) as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = text_of(data, account)
        if text is not None:
            yield SourceDocument(path, text, account.name, account.revision, licences.nearest(path))
