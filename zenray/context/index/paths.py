"""Where trees begin and where their indexes lie."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from zenray.config import home
from zenray.errors import ConfigError


def index_path(root: Path | str) -> Path:
    """The database of the tree at `root`: `index/<digest of the absolute path>.sqlite` in zenray's home."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return home() / "index" / f"{digest}.sqlite"


def tree_root(root: Path | str) -> Path:
    """`root` without links and relative parts. Raises ConfigError unless it is a folder that can be listed."""
    folder = Path(os.path.realpath(root))
    try:
        with os.scandir(folder):
            return folder
    except NotADirectoryError:
        raise ConfigError(f"{root} is a file; name the folder of a workspace") from None
    except FileNotFoundError:
        raise ConfigError(f"there is no folder {root}") from None
    except OSError as error:
        raise ConfigError(f"{root} cannot be listed: {error.strerror}") from error
