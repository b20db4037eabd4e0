"""The child process of a pull: it alone touches the network, so a pull can stop it at any moment.

    python -P fetch_child.py pip ARGUMENTS…                    pip, as the user has configured it
    python -P fetch_child.py hub REPO FILE REVISION FOLDER     one file of a hub repository

It imports nothing of zenray. On Linux it dies with its parent, however that one ends.
The last line of its output, when it fails, is the reason in words.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

METADATA_TIMEOUT_S = 4
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


def _hub(repo: str, filename: str, revision: str, folder: str) -> None:
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError:
        sys.exit("huggingface_hub is not installed")
    try:
        # The file's size comes first: it tells within seconds whether the hub can be reached at all.
        url = hf_hub_url(repo, filename, revision=revision)
        metadata = get_hf_file_metadata(url, timeout=METADATA_TIMEOUT_S, token=False)
        print(f"size {metadata.size}", flush=True)
        hf_hub_download(repo, filename, revision=revision, local_dir=folder, token=False)
    except Exception as error:
        sys.exit(_in_words(error))


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
