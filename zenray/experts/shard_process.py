"""An expert shard as a process of its own: `python -m zenray.experts.shard_process`, as `ProcessHost` starts it.

One JSON line in (`ShardOrder`), one JSON line out: {"address": ...} once it listens, or {"error": ...}. It ends
with its leader's connections, with the end of its input, and with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading

from pydantic import BaseModel

from zenray.config import ExpertSettings, ModelSettings
from zenray.errors import ZenrayError
from zenray.experts.shard_server import ShardServer
from zenray.model.build import open_weights, set_num_threads

_PR_SET_PDEATHSIG = 1


class ShardOrder(BaseModel):
    """What a shard process is to be. bind: "unix", or the address of an interface. parent: its process id."""

    shard: int
    parent: int
    model: ModelSettings
    experts: ExpertSettings
    bind: str
    token: str


def main() -> None:
    order = ShardOrder.model_validate_json(sys.stdin.readline())
    _end_with_parent(order.parent)
    # Ctrl-C reaches everybody in the terminal; the leader decides what becomes of requests under way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_num_threads(order.experts.num_threads)
    try:
        weights = open_weights(order.model)
        server = ShardServer(
            order.shard, weights, order.experts, order.token, bind=order.bind, device=order.model.device
        )
    except (ZenrayError, OSError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)
    print(json.dumps({"address": server.address}), flush=True)
    server.serve()


def _end_with_parent(parent: int) -> None:
    """At once when the parent dies, even while this process is stopped; when its input ends, wherever it is."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, name="zenray-shard-parent", daemon=True).start()


if __name__ == "__main__":
    main()
