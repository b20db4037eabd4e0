"""An editor session as the command line plays it: a workspace named, files open, then a request about one of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from zenray.api.client import Client
from zenray.cli.console import printable, stderr
from zenray.cli.target import path_in, read_text
from zenray.errors import InvalidRequest
from zenray.v1 import context_pb2


def session_events(files: Sequence[Path], workspace: Path | None) -> list[context_pb2.UpdateDocumentsRequest]:
    """What tells a server that `files` are open in `workspace`.

    Raises InvalidRequest for a file that cannot be read or a workspace that is no folder.
    """
    events = []
    if workspace is not None:
        if not workspace.is_dir():
            raise InvalidRequest.of("--workspace", str(workspace), "a folder")
        named = context_pb2.WorkspaceNamed(root=str(workspace.resolve()))
        events.append(context_pb2.UpdateDocumentsRequest(workspace=named))
    for path in files:
        opened = context_pb2.DocumentOpened(path=path_in(workspace, path), text=read_text("--open", path), version=1)
        events.append(context_pb2.UpdateDocumentsRequest(opened=opened))
    return events


def tell_of_missing_index(workspace: Path) -> None:
    """Say on stderr that nothing of the workspace is known yet, and how to change that."""
    from zenray.context.index import index_path  # a sixth of a second, for those who name a workspace

    if not index_path(workspace).exists():
        stderr().print(Text(f"{printable(str(workspace))} has no index; make one: zenray index {workspace}", "warn"))


@contextmanager
def editor_session(
    client: Client, session_id: str, events: Sequence[context_pb2.UpdateDocumentsRequest]
) -> Iterator[str]:
    """The id of a session to which `events` have happened; one that was made for them ends with this."""
    if not events:
        yield session_id
        return
    used_id = session_id or f"cli-{uuid.uuid4().hex[:12]}"
    events[0].session_id = used_id
    client.update_documents(events)
    try:
        yield used_id
    finally:
        if not session_id:
            ended = context_pb2.UpdateDocumentsRequest(session_id=used_id, ended=context_pb2.SessionEnded())
            client.update_documents([ended])
