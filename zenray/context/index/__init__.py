"""What a workspace defines, kept in SQLite and looked up while somebody types."""

from zenray.context.index.build import BuildReport, Progress, build_index, forget_index
from zenray.context.index.paths import index_path
from zenray.context.index.uploads import UploadedIndex
from zenray.context.index.workspace import IndexStatus, WorkspaceIndex, open_index

__all__ = [
    "BuildReport",
    "IndexStatus",
    "Progress",
    "UploadedIndex",
    "WorkspaceIndex",
    "build_index",
    "forget_index",
    "index_path",
    "open_index",
]
