"""The child process of a pull: it alone touches the network, so a pull can stop it at any moment.

    python -P fetch_child.py pip ARGUMENTS…                       pip, as the user has configured it
    python -P fetch_child.py hub REPO FILE REVISION TARGET SIZE   one file of a hub repository

It imports nothing of zenray. On Linux it dies with its parent, however that one ends.
The last line of its output, when it fails, is the reason in words.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any

METADATA_TIMEOUT_S = 4
READ_TIMEOUT_S = 30
CHUNK_BYTES = 1024 * 1024
MAX_FAILURES = 5
_PR_SET_PDEATHSIG = 1


def _die_with_parent(parent: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def _pip(arguments: list[str]) -> None:
    sys.argv = ["pip", *arguments]
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except ImportError:
        sys.exit("pip is not installed beside this Python; add it: python -m ensurepip")


def _hub(repo: str, filename: str, revision: str, target: str, size: str) -> None:
    try:
        from huggingface_hub import get_hf_file_metadata, get_session, hf_hub_url
    except ImportError:
        sys.exit("huggingface_hub is not installed")
    expected = int(size)
    try:
        # Asked first: it tells within seconds whether the hub can be reached, and has the right file.
        url = hf_hub_url(repo, filename, revision=revision)
        metadata = get_hf_file_metadata(url, timeout=METADATA_TIMEOUT_S, token=False)
        if metadata.size != expected:
            sys.exit(f"refused: it offers {metadata.size:,} bytes, expected {expected:,}")
        print("found", flush=True)
        _download(get_session(), url, target, expected)
    except Exception as error:
        sys.exit(_in_words(error))


def _download(session: Any, url: str, target: str, expected: int) -> None:
    """Append to `target` what it lacks; a connection that breaks is taken up again as long as bytes arrive.

    The library's own download keeps no partial file between processes.
    """
    failures = 0
    while (present := os.path.getsize(target) if os.path.exists(target) else 0) < expected:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={present}-"}
        try:
            with session.stream("GET", url, headers=headers, follow_redirects=True, timeout=READ_TIMEOUT_S) as response:
                response.raise_for_status()
                # A server that ignores the range sends everything: start over.
                with open(target, "ab" if response.status_code == 206 else "wb") as file:
                    for chunk in response.iter_raw(CHUNK_BYTES):
                        file.write(chunk)
                        file.flush()
        except Exception:
            failures += 1
            if failures > MAX_FAILURES or os.path.getsize(target) <= present:
                raise


def _in_words(error: Exception) -> str:
    kind = type(error).__name__
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else kind
    unreachable = any(sign in kind for sign in ("Connect", "Timeout", "Network", "Proxy"))
    return f"cannot be reached ({reason})" if unreachable else f"{kind}: {reason}"


def main(arguments: list[str]) -> None:
    parent, what, *rest = arguments
    _die_with_parent(int(parent))
    if what == "pip":
        _pip(rest)
    else:
        _hub(*rest)


if __name__ == "__main__":
    main(sys.argv[1:])
