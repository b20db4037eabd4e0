"""What a replica does about its memory once it is up."""

from __future__ import annotations

import gc


def settle() -> None:
    """Takes everything that is there now out of the garbage collector's sight: libraries and weights stay for
    good, and walking through torch's objects stops every stream of the process for tens of milliseconds."""
    gc.collect()
    gc.freeze()
