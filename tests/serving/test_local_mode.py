"""Local mode needs nothing but this machine: the whole platform serves an editor with networking removed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zenray.serving.harness import WAIT_S
from zenray.serving.host_harness import HostsNotPermitted, without_network

SERVE_AND_ASK = """
import socket
import sys
import psutil
from zenray.api.client import Client
from zenray.serving.harness import tiny_platform
from zenray.v1 import completion_pb2, context_pb2

assert set(psutil.net_if_addrs()) == {"lo"}, psutil.net_if_addrs()
try:
    socket.create_connection(("192.0.2.7", 443), 5)
except OSError:
    pass
else:
    sys.exit("there is a network")
text = "def area(width, height):\\n    "
opened = context_pb2.DocumentOpened(path="area.py", text=text, version=1)
with tiny_platform("context.mode=local", "draft.num_replicas=1") as platform, Client(platform.grpc_address) as client:
    client.update_documents([context_pb2.UpdateDocumentsRequest(session_id="s", opened=opened)])
    message = completion_pb2.CompleteRequest(session_id="s")
    message.editor.path = "area.py"
    message.editor.tracked.version = 1
    message.editor.cursor.offset = len(text)
    message.limits.max_tokens, message.limits.ignore_eos = 8, True
    events = list(client.complete(message))
print("tokens", events[-1].final.usage.completion_tokens)
"""


def test_an_editor_is_served_with_networking_removed() -> None:
    try:
        with without_network() as alone:
            done = subprocess.run(
                [*alone, sys.executable, "-c", SERVE_AND_ASK], capture_output=True, text=True, timeout=3 * WAIT_S
            )
    except HostsNotPermitted as reason:
        pytest.skip(str(reason))
    assert done.returncode == 0, done.stderr[-4000:]
    num_tokens = int(done.stdout.split("tokens ")[1])
    assert num_tokens > 0
